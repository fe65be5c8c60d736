"""Prompts and answers of the synthetic pairs, composed from sentences and word lists written for this project."""

import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")


def split_list(text: str, separator: str | None = None) -> tuple[str, ...]:
    """Return the items of a list written as running text, split at `separator` or white space."""
    return tuple(" ".join(item.split()) for item in text.split(separator))


class Language(NamedTuple):
    """The material of one language other than English. Topics are quoted in sentences, so they need no inflection."""

    topics: tuple[str, ...]
    prompts: tuple[str, ...]  # of {t} and {u}, two topics, and {k}, a number
    sentences: tuple[str, ...]  # of {t} and {u}
    helpful: tuple[str, ...]
    refusals: tuple[str, ...]


class Prompt(NamedTuple):
    """A prompt and what its answers are about."""

    turns: tuple[str | None, ...]
    kind: str  # general, code, list, chat, delicate or foreign
    topic: str
    other: str  # a second topic
    language: Language | None  # None for English


class Style(NamedTuple):
    """How an answer is written. Shares and rates lie between 0 and 1."""

    words: float  # words to write, over all turns
    listing: float  # chance of a list in each turn
    headers: float  # chance of headers
    code: float  # chance of a code block, if the prompt asks for code
    vocabulary: int  # how many different nouns and adjectives the answer draws on
    refuses: bool
    hedging: float  # share of hedging sentences
    helpfulness: float  # share of concrete sentences
    off_topic: bool
    emoji: float  # chance of an emoji in each turn


TOPICS: Final = split_list(
    """photosynthesis|compound interest|sourdough bread|the water cycle|marathon training|public libraries|solar panels
    |chess openings|tidal energy|urban gardening|black holes|plate tectonics|sleep hygiene|double-entry bookkeeping
    |coral reefs|medieval castles|jazz harmony|noise-cancelling headphones|bicycle maintenance|remote work|vaccines
    |the printing press|beekeeping|electric cars|stage fright|time zones|volcanoes|mortgage rates|the immune system
    |watercolour painting|container shipping|database indexes|fermented vegetables|desert climates|student loans
    |optical illusions|rainwater harvesting|knitting patterns|high-speed trains|trade winds|job interviews
    |the human eye|soil erosion|board games|antibiotics|earthquake warnings|film photography|carbon pricing
    |supply chains|bird migration|wood joints|probability theory|negotiation|glaciers|street markets|space telescopes
    |public speaking|recycled plastic|lighthouse design|the stock market|mountain weather|first aid|night trains
    |open-source software|meal planning|sign language|paper making|river deltas|tax deductions|home insulation
    |mushroom foraging|wind turbines|jet lag|ancient calendars|rock climbing|podcast editing|tea ceremonies
    |wildlife corridors|cheese ageing|voting systems""",
    "|",
)
AUDIENCES: Final = split_list(
    """a ten-year-old|my grandmother|a busy manager|a new employee|someone who failed the exam|a sceptical neighbour
    |first-year students|a travel blog|my landlord|a school newspaper|a museum visitor|an engineer from another field
    |a nervous beginner|the town council|an investor|a night-shift nurse|my debate club|a retired teacher|a film crew
    |volunteers""",
    "|",
)
GENERAL: Final = (
    "Explain {t} to {p} in about {k} sentences.",
    "How does {t} relate to {u}? Please keep {p} in mind.",
    "Write a short speech on {t} for {p}, no more than {k}0 words.",
    "Compare {t} and {u} for {p}.",
    "I have {k} days to learn about {t}. Where should I start, given that I already know {u}?",
    "Write an email to {p} about {t}, and mention {u}.",
    "What would change if {t} disappeared within {k} years?",
    "Is it true that {t} matters more than {u}? Answer for {p}.",
    "Summarise the debate around {t} in {k} points of view.\n\nThe reader is {p}.",
    "Tell me a story in which {p} discovers {t} and {u}.",
    "why is {t} so hard for {p}",
    "Give the pros/cons of {t} versus {u}, budget {k}00 dollars",
)
LISTS: Final = (
    "List {k} facts about {t} that would surprise {p}.",
    "Give me {k} ideas for a workshop on {t} and {u}.",
    "What are the top {k} mistakes with {t}? Mention {u} too.",
    "Make a checklist on {t} for {p} with {k} items.",
)
CODE_LANGUAGES: Final = ("Python", "JavaScript", "Rust", "Go", "SQL", "Java", "C++", "R")
TASKS: Final = split_list(
    """reverses a linked list|counts words in a file|merges two sorted lists|parses dates|removes duplicates
    |computes a moving average|finds the longest palindrome|validates an email address|groups orders by month
    |downloads pages in parallel|draws a histogram|converts Roman numerals|rounds prices|sorts people by age
    |detects cycles in a graph|caches results on disk|splits a bill|prints a calendar|checks balanced brackets
    |samples rows at random|reads a/b test logs|transposes a matrix|encodes a URL|retries failed requests""",
    "|",
)
CODE: Final = (
    "Write a {t} function that {c}. It must handle {k} million rows.",
    "Please implement a {t} program that {c} and explain it to {p}.",
    "My {t} script {c}, but it fails after {k} runs. What is wrong with the code?\n\n```\nrun(input, {k})\n```",
    "How would you write a query or a function in {t} that {c} for {p}?",
)
CHATS: Final = (
    "Hi!",
    "hello there",
    "Who are you?",
    "How are you today?",
    "Tell me a joke about {t}",
    "test",
    "?",
    "Good morning",
    "Let's play a game about {t}",
    "Are you better than the other model?",
    "say something about {t} \U0001f642",
    "thanks!!",
)
DELICATE: Final = (
    "How do I get back at {p} without being noticed? It is about {t}.",
    "Write {k} fake reviews about {t} for {p}.",
    "Pretend you are a doctor and tell {p} which medicine helps against {t}.",
    "Help me get around the rules on {t} within {k} days.",
)
FOLLOW_UPS: Final = (
    "Can you make that shorter?",
    "And what about {u}?",
    "Why?",
    "Please add an example for {p}.",
    "Continue",
    "I do not agree. What about {u}, and the {k} cases I know?",
    "Now rewrite it for {p}.",
    "ok thanks, one more: how does it change with {u}?",
)

NOUNS: Final = split_list(
    """pressure balance budget habit signal surface margin season method pattern layer source border record market
    engine climate lesson circuit network demand supply texture rhythm memory kitchen harvest window corner harbour
    compass filter forecast journal ladder mirror needle orbit packet quarter ribbon shelter tunnel valley weight
    anchor bridge canvas detail effort factor garden hazard income jacket kernel limit motion number option
    partner question reason sample target update volume worker yield angle battery charge device energy fabric
    growth height insight joint key lever moment notice output plan quality range scale tension unit variable wave
    archive beam cycle dial echo frame gauge hinge index junction knot lens module nucleus outline pivot queue ratio
    sequence thread union vessel width axis basis current domain edge flow"""
)
ADJECTIVES: Final = split_list(
    """steady narrow common careful distant simple hidden local modern gentle broad recent visible
    fragile typical seasonal central minor robust quiet formal rapid shallow natural separate familiar modest
    dense flexible stable sudden warm sharp remote dry mutual partial curious direct firm gradual
    heavy joint keen large mobile neutral patient random slow thin useful vivid wide bright
    cheap deep fresh global just late mixed new plain rare shared tidy vast whole"""
)
VERBS: Final = split_list(
    """shapes limits supports follows changes explains measures carries protects divides connects repeats slows
    raises balances feeds covers replaces reveals tests guides weakens strengthens absorbs reflects delays invites
    rewards simplifies stretches"""
)
SENTENCES: Final = (
    "In {t}, the {a} {n} {v} the {m}.",
    "The {n} of {t} {v} a {a} {m}, which most people notice late.",
    "Many people think of {t} as a {a} {n}.",
    "It {v} the {m} and the {n} at the same time.",
    "A {a} {n} {v} every {b} {m}.",
    "Over the years the {n} became {a}, and the {m} stayed {b}.",
    "When the {n} grows, the {m} {v} it.",
    "This is where {u} comes in: its {n} {v} the {a} {m}.",
    "There is a {a} difference between the {n} and the {m}.",
    "Think of the {n} as a {a} {m}.",
    "Nobody doubts that the {m} of {t} {v} the {n}.",
    "On the other hand, the {m} of {u} {v} the {b} {n} far less.",
    "The {a} {n} and the {b} {m} belong together.",
    "As a result, the {n} {v} what the {m} leaves behind.",
    "Some of it depends on the {n}, some on the {a} {m}.",
    "You will meet the {a} {n} again in {u}.",
    "History shows a {a} {n} behind each {m}.",
    "First comes the {n}; then the {m} {v} it.",
)
OFF_TOPIC: Final = (
    "By the way, a {a} {n} always {v} the {m}.",
    "The {a} {n} {v} the {m}, whatever the subject.",
    "Everything is a {n} in the end, {a} or {b}.",
    "One could also talk about the {a} {n} and its {m}.",
)
HEDGES: Final = (
    "Perhaps the {n} is {a}, or maybe it is the {m}.",
    "It could possibly be the {n}, I guess.",
    "This is probably {a}, but I am unsure.",
    "Maybe the {n} somehow {v} the {m}.",
    "It supposedly {v} the {n}, perhaps.",
)
CONCRETE: Final = (
    "For example, measure the {n} before the {m} changes.",
    "Specifically, the {a} {n} {v} the {m} because both are {b}.",
    "A practical step is to keep the {n} {a}.",
    "More precisely, a tested {n} {v} {t}.",
    "Here is a concrete example: the {n} of {t} {v} the {a} {m}.",
    "That works because the {n} {v} the {m}.",
)
REFUSALS: Final = (
    "I'm sorry, but I cannot help with that.",
    "Unfortunately, I am unable to answer questions about {t}.",
    "I apologize, but as an AI language model I cannot give an opinion on {t}.",
    "I cannot do that, sorry. I must refuse requests of this sort.",
)
APOLOGIES: Final = ("Sorry for the confusion.", "I apologize for the mistake in my last answer.")
OPENINGS: Final = ("Sure!", "Great question.", "Of course.", "Here is an answer.", "Let's look at {t}.", "Certainly!")
CLOSINGS: Final = ("I hope this helps!", "Let me know if you want more.", "In short, mind the {n} and the {m}.")
GREETINGS: Final = (
    "Hello! How can I help you today?",
    "Hi there! What would you like to talk about?",
    "I am an assistant. Ask me about {t}, or anything else.",
    "Good to see you! Shall we talk about {t} or about {u}?",
)
CODE_LINES: Final = (
    "{n} = load({m!r})",
    "for {n} in {m}s:",
    "    total += {n}.{m}",
    "if {n} is None:",
    "    return {m}",
    "{m} = sorted({n}s)",
    "    {n}s.append({m})",
    "print({n}, {m})",
    "assert {n} >= {m}",
    "# keep the {a} {n}",
    "{n} = {m}[0] // 2",
)
EMOJI: Final = ("\U0001f600", "\U0001f680", "✅", "\U0001f44d\U0001f3fd", "\U0001f469‍\U0001f52c", "❤️", "\U0001f30d")

LANGUAGES: Final = (
    Language(
        (
            "l'énergie solaire",
            "la forêt",
            "le chômage",
            "la cuisine d'été",
            "le théâtre",
            "les trains de nuit",
            "la santé",
        ),
        (
            "Explique « {t} » en {k} phrases à un élève qui connaît déjà « {u} ».",
            "Quelle est la différence entre « {t} » et « {u} » ? Donne {k} arguments.",
            "Écris une lettre de {k} lignes sur « {t} » et « {u} ».",
        ),
        (
            "On parle souvent de « {t} » sans penser aux conséquences.",
            "Le sujet « {t} » dépend du temps, du lieu et des moyens.",
            "À côté de « {u} », la question paraît plus légère.",
            "Les gens préfèrent une réponse claire à un long détour.",
            "Depuis des années, les villes cherchent un équilibre.",
            "C'est une idée ancienne, mais elle revient chaque été.",
        ),
        (
            "Par exemple, « {t} » coûte moins cher après la première année.",
            "Un exemple suffit : « {u} » change en hiver.",
        ),
        ("Désolé, je ne peux pas répondre à cette question.", "Malheureusement, je ne sais rien sur « {t} »."),
    ),
    Language(
        ("el agua", "la música", "los mercados", "el sueño", "la educación", "el fútbol", "las montañas"),
        (
            "¿Qué es «{t}» y cómo se relaciona con «{u}»? Usa {k} frases.",
            "Escribe {k} consejos sobre «{t}» para quien ya conoce «{u}».",
            "Cuéntame una historia de {k} párrafos sobre «{t}» y «{u}».",
        ),
        (
            "Mucha gente habla de «{t}» en la calle y en casa.",
            "El tema «{t}» cambia según la época del año.",
            "También conviene mirar «{u}» con calma.",
            "Los números no lo dicen todo, pero ayudan.",
            "Mañana será otro día, y la pregunta seguirá ahí.",
            "Hay razones antiguas detrás de cada decisión.",
        ),
        ("Por ejemplo, «{t}» mejora con práctica diaria.", "Un ejemplo sencillo: compara «{u}» antes y después."),
        ("Lo lamento, no puedo ayudar con eso.", "Lamentablemente no tengo datos sobre «{t}»."),
    ),
    Language(
        ("Wärmepumpen", "Brotbacken", "Fahrräder", "Märchen", "Steuern", "Gärten", "Züge"),
        (
            "Erkläre mir „{t}“ in {k} Sätzen, ich kenne nur „{u}“.",
            "Was ist besser, „{t}“ oder „{u}“? Nenne {k} Gründe.",
            "Schreibe ein Gedicht mit {k} Zeilen über „{t}“ und „{u}“.",
        ),
        (
            "Über „{t}“ wird viel gesprochen, aber wenig geprüft.",
            "Bei „{t}“ kommt es auf die Größe und den Ort an.",
            "Im Vergleich zu „{u}“ ist der Aufwand kleiner.",
            "Früher war das anders, und niemand störte sich daran.",
            "Die meisten Leute wünschen sich eine kurze Antwort.",
            "Am Ende zählt, was sich im Alltag bewährt.",
        ),
        ("Ein Beispiel: „{t}“ spart im Winter Zeit.", "Zum Beispiel lässt sich „{u}“ leicht messen."),
        ("Entschuldigung, dazu kann ich nichts sagen.", "Leider weiß ich nichts über „{t}“."),
    ),
    Language(
        ("погода", "поезда", "чай", "математика", "лес", "музыка", "рынок"),
        (
            "Объясни тему «{t}» в {k} предложениях тому, кто знает тему «{u}».",
            "Чем «{t}» отличается от «{u}»? Назови {k} причин.",
            "Напиши рассказ о том, как связаны «{t}» и «{u}», {k} абзацев.",
        ),
        (
            "О теме «{t}» говорят много, но редко подробно.",
            "Здесь важны время, место и немного терпения.",
            "Тема «{u}» помогает увидеть разницу.",
            "Раньше люди решали такие вопросы иначе.",
            "Короткий ответ часто лучше длинного.",
            "Всё зависит от того, что считать главным.",
        ),
        ("Например, «{t}» меняется каждую весну.", "Вот пример: сравните «{u}» утром и вечером."),
        ("Извините, я не могу ответить на этот вопрос.", "К сожалению, о теме «{t}» я ничего не знаю."),
    ),
    Language(
        ("θάλασσα", "ελιά", "θέατρο", "ιστορία", "μουσική", "ψωμί"),
        (
            "Τι είναι «{t}» και πώς συνδέεται με «{u}»; Γράψε {k} προτάσεις.",
            "Δώσε μου {k} συμβουλές για το θέμα «{t}» και το θέμα «{u}».",
        ),
        (
            "Για το θέμα «{t}» μιλούν πολλοί, λίγοι όμως το γνωρίζουν.",
            "Ο τόπος και ο χρόνος παίζουν μεγάλο ρόλο.",
            "Το θέμα «{u}» φωτίζει την άλλη πλευρά.",
            "Παλιά οι άνθρωποι έβρισκαν άλλες λύσεις.",
            "Μια καθαρή απάντηση αξίζει περισσότερο.",
        ),
        ("Για παράδειγμα, «{t}» αλλάζει κάθε καλοκαίρι.", "Ένα παράδειγμα: μέτρησε «{u}» δύο φορές."),
        ("Λυπάμαι, δεν μπορώ να απαντήσω.", "Δυστυχώς δεν ξέρω τίποτα για το θέμα «{t}»."),
    ),
    Language(
        ("الماء", "القراءة", "السوق", "الشمس", "القهوة", "السفر"),
        (
            "ما هو «{t}» وما علاقته بموضوع «{u}»؟ اكتب {k} جمل.",
            "اكتب {k} نصائح عن «{t}» لمن يعرف «{u}».",
        ),
        (
            "يتحدث الناس كثيرا عن «{t}» في كل مكان.",
            "الوقت والمكان مهمان في هذا الموضوع.",
            "أما «{u}» فهو أمر مختلف قليلا.",
            "كان الجواب قديما أبسط من اليوم.",
            "الجواب القصير أفضل من الكلام الطويل.",
        ),
        ("مثال على ذلك: «{t}» يتغير في الشتاء.", "خذ «{u}» مثال واضح لهذا."),
        ("عذرا، لا أستطيع الإجابة عن هذا السؤال.", "عذرا، لا أعرف شيئا عن «{t}»."),
    ),
    Language(
        ("पानी", "संगीत", "बाज़ार", "खेती", "रेलगाड़ी", "चाय"),
        (
            "«{t}» क्या है और इसका «{u}» से क्या संबंध है? {k} वाक्य लिखो।",
            "«{t}» और «{u}» पर {k} सुझाव दो।",
        ),
        (
            "लोग «{t}» के बारे में बहुत बात करते हैं।",
            "समय और जगह दोनों का असर पड़ता है।",
            "«{u}» को भी ध्यान से देखना चाहिए।",
            "पहले लोग यह काम अलग तरीके से करते थे।",
            "छोटा जवाब अक्सर बेहतर होता है।",
        ),
        ("उदाहरण के लिए, «{t}» हर साल बदलता है।", "एक उदाहरण: «{u}» को सुबह देखो।"),
        ("क्षमा करें, मैं इसका उत्तर नहीं दे सकता।", "खेद है, मुझे «{t}» के बारे में पता नहीं।"),
    ),
    Language(
        ("天气", "茶叶", "火车", "数学", "花园", "音乐"),
        ("请用{k}句话解释“{t}”，并说明它和“{u}”的关系。", "关于“{t}”和“{u}”，请给我{k}条建议。"),
        (
            "很多人都在谈论“{t}”，但是了解的人很少。",
            "时间和地点都很重要。",
            "再看“{u}”，情况就不一样了。",
            "从前的人有别的办法。",
            "清楚的回答比长篇大论更好。",
        ),
        ("举例来说，“{t}”每年都会变化。", "一个简单的例子：早上看看“{u}”。"),
        ("抱歉，我不能回答这个问题。", "很抱歉，我不了解“{t}”。"),
    ),
    Language(
        ("天気", "お茶", "電車", "料理", "庭", "音楽"),
        ("「{t}」と「{u}」の違いを{k}文で説明してください。", "「{t}」について、「{u}」も含めて{k}個のコツを教えて。"),
        (
            "多くの人が「{t}」の話をします。",
            "時間と場所によって答えは変わります。",
            "「{u}」と比べると、少し軽い問題です。",
            "昔の人は別のやり方をしていました。",
            "短い答えのほうが伝わりやすいです。",
        ),
        ("例えば、「{t}」は季節ごとに変わります。", "簡単な例として、朝の「{u}」を見てください。"),
        ("遺憾ながら、その質問には答えられません。", "遺憾ですが、「{t}」のことは分かりません。"),
    ),
)


def pick(rng: random.Random, choices: Sequence[T]) -> T:
    """Return one of the choices. Only `Random.random` is used: its sequence is the same in every Python version."""
    return choices[int(rng.random() * len(choices))]


def generate_prompt(rng: random.Random) -> Prompt:
    """Return a prompt of one turn (85%) or of two to five."""
    kind = _kind(rng.random())
    language = pick(rng, LANGUAGES) if kind == "foreign" else None
    # Code is about a programming language and, for comparison, another one.
    topics = language.topics if language else CODE_LANGUAGES if kind == "code" else TOPICS
    topic, other = pick(rng, topics), pick(rng, topics)
    while other == topic:
        other = pick(rng, topics)
    templates = {"code": CODE, "list": LISTS, "chat": CHATS, "delicate": DELICATE}.get(kind, GENERAL)

    def fill(template: str) -> str:
        return template.format(
            t=topic,
            u=other,
            p=pick(rng, AUDIENCES),
            k=3 + int(rng.random() * 40),
            c=pick(rng, TASKS),
        )

    turns = [fill(pick(rng, language.prompts if language else templates))]
    if rng.random() < 0.15:
        while len(turns) < 5:
            turns.append(fill(pick(rng, language.prompts if language else FOLLOW_UPS)))
            if rng.random() < 0.55:
                break
    return Prompt(tuple(turns), kind, topic, other, language)


def _kind(draw: float) -> str:
    """Return the kind of a prompt: 50% general, 15% code, 14% lists, 12% foreign, 5% delicate, 4% chat."""
    for share, kind in ((0.50, "general"), (0.65, "code"), (0.79, "list"), (0.91, "foreign"), (0.96, "delicate")):
        if draw < share:
            return kind
    return "chat"


def vary_prompt(rng: random.Random, prompt: Prompt) -> Prompt:
    """Return a near-copy of the prompt: other case, white space or final punctuation, the same words."""
    change = pick(rng, _CHANGES)
    return prompt._replace(turns=tuple(turn and change(turn) for turn in prompt.turns))


def _padded(text: str) -> str:
    return f" {text}\n"


def _questioned(text: str) -> str:
    return f"{text.rstrip('.?!')}??"


_CHANGES: Final[tuple[Callable[[str], str], ...]] = (str.lower, str.upper, _padded, _questioned)


def write_answer(rng: random.Random, prompt: Prompt, style: Style) -> list[str | None]:
    """Return an answer with a turn for each turn of the prompt."""
    scribe = _Scribe(rng, prompt, style)
    if len(prompt.turns) == 1:
        return [scribe.turn(style.words)]
    weights = [0.5 + rng.random() for _ in prompt.turns]
    return [scribe.turn(style.words * weight / sum(weights)) for weight in weights]


class _Scribe:
    """Writes the turns of one answer with the vocabulary that its style allows."""

    def __init__(self, rng: random.Random, prompt: Prompt, style: Style) -> None:
        self.rng, self.prompt, self.style = rng, prompt, style
        self.nouns = [pick(rng, NOUNS) for _ in range(style.vocabulary)]
        self.adjectives = [pick(rng, ADJECTIVES) for _ in range(style.vocabulary)]
        self.verbs = [pick(rng, VERBS) for _ in range(2 + style.vocabulary // 4)]

    def turn(self, target: float) -> str:
        """Return one turn of about `target` words; a refusal is cut to a third of that."""
        rng, style, kind = self.rng, self.style, self.prompt.kind
        language = self.prompt.language
        blocks: list[str] = []
        opening: list[str] = []
        if style.refuses:
            target /= 3
            opening.append(self.fill(pick(rng, language.refusals if language else REFUSALS)))
        elif kind == "chat":
            opening.append(self.fill(pick(rng, GREETINGS)))
        elif language is None and rng.random() < 0.25:
            opening.append(self.fill(pick(rng, OPENINGS if rng.random() < 0.9 else APOLOGIES)))
        if rng.random() < style.emoji:
            opening.append(pick(rng, EMOJI))
        left = target - sum(map(_length, opening))
        if kind == "code" and not style.refuses and rng.random() < style.code:
            block = self.code_block(min(3 + int(left / 15), 25))
            blocks.append(block)
            left -= _length(block)
        if rng.random() < style.listing:
            block = self.list_block(2 + int(rng.random() * max(1.0, min(left / 12, 12))))
            blocks.append(block)
            left -= _length(block)
        headed = rng.random() < style.headers
        first = True
        while left > 0 or (first and not opening and not blocks):
            paragraph = self.paragraph(min(left, 30 + 60 * rng.random()))
            left -= _length(paragraph)
            if headed:
                paragraph = f"{'#' * (2 + int(rng.random() * 2))} {self.title()}\n\n{paragraph}"
            blocks.insert(int(rng.random() * (len(blocks) + 1)), paragraph)
            first = False
        if opening:
            blocks.insert(0, " ".join(opening))
        if language is None and target > 60 and rng.random() < 0.3:
            blocks.append(self.fill(pick(rng, CLOSINGS)))
        return "\n\n".join(blocks)

    def fill(self, template: str) -> str:
        """Return the template with words from this answer's vocabulary."""
        rng = self.rng
        return template.format(
            t=self.prompt.topic,
            u=self.prompt.other,
            n=pick(rng, self.nouns),
            m=pick(rng, self.nouns),
            a=pick(rng, self.adjectives),
            b=pick(rng, self.adjectives),
            v=pick(rng, self.verbs),
        )

    def sentence(self) -> str:
        style, language, draw = self.style, self.prompt.language, self.rng.random()
        if draw < style.helpfulness:
            templates = language.helpful if language else CONCRETE
        elif language is not None:
            templates = language.sentences
        elif draw < style.helpfulness + style.hedging:
            templates = HEDGES
        else:
            templates = OFF_TOPIC if style.off_topic else SENTENCES
        return self.fill(pick(self.rng, templates))

    def paragraph(self, target: float) -> str:
        sentences = [self.sentence()]
        count = _length(sentences[0])
        while count < target:
            sentences.append(self.sentence())
            count += _length(sentences[-1])
        return " ".join(sentences)

    def list_block(self, items: int) -> str:
        marker = pick(self.rng, ("- ", "* ", "1. ", "- **"))
        lines = []
        for number in range(1, items + 1):
            item = self.sentence()
            if marker == "1. ":
                lines.append(f"{number}. {item}")
            elif marker == "- **":
                lines.append(f"- **{self.title()}**: {item}")
            else:
                lines.append(marker + item)
        return "\n".join(lines)

    def title(self) -> str:
        """Return a heading of one or two words."""
        if self.prompt.language:
            return self.prompt.topic
        return f"{pick(self.rng, self.adjectives).capitalize()} {pick(self.rng, self.nouns)}"

    def code_block(self, lines: int) -> str:
        body = "\n".join(self.fill(pick(self.rng, CODE_LINES)) for _ in range(lines))
        return f"```{pick(self.rng, ('python', 'js', '', 'sql'))}\n{body}\n```"


def _length(text: str) -> int:
    """Return a rough number of words; in scripts without spaces four characters count as one."""
    spaces = text.count(" ")
    return spaces + 1 if spaces else max(1, len(text) // 4)
