"""The command line that every job shares, and its exit codes: 0 done, 1 failure, 2 bad input or settings."""

import argparse
import contextlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence

from featurize.files import resolve
from preference.errors import InputError
from ray_jobs.lock import TakenOverError, locked
from ray_jobs.run import Run, StageResult, disconnect
from ray_jobs.settings import Settings
from ray_jobs.settings_file import load_settings


def main(
    job: str,
    description: str | None,
    work: Callable[[Run], list[StageResult]],
    arguments: Sequence[str] | None = None,
    dry_run: Callable[[Run], str] | None = None,
    dry_run_packs: bool = False,
    own_run: bool = True,
    saves_settings: bool = True,
) -> int:
    """Parse the command line, run the job, say what it did; returns the exit code.

    `dry_run` is for jobs that can say what they would take: its text is printed in place of the work; one that packs
    records to count their tokens writes them to the run, which it then holds as any job does. A job without a
    run of its own reads one that others made: it does not hold its folder. Settings are saved in the run once the job
    has done what they say, unless it makes nothing that others go on from.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m ray_jobs.{job}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="settings as YAML, path or URI; see configs/")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one setting, for example --set data.folds=5; may be repeated",
    )
    parser.add_argument("--force", action="store_true", help="redo what is already finished")
    parser.add_argument("--take-over", action="store_true", help="end the hold that another job has on the run")
    if dry_run is not None:
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="say what the work would take, and do none of it"
            + (" (but tokens are counted, and kept for the work)" if dry_run_packs else ""),
        )
    options = parser.parse_args(arguments)
    told_to_stop = threading.Event()
    try:
        run = Run(_settings(options.config, options.set), options.force, options.take_over)
        asked = dry_run if dry_run is not None and options.dry_run else None
        holds = own_run if asked is None else dry_run_packs
        with (
            _sigterm_is_system_exit(told_to_stop),
            locked(run.folder, job, run.take_over) if holds else contextlib.nullcontext(),
        ):
            if asked is not None:
                print(asked(run))
                return 0
            try:
                results = work(run)
            except BaseException:
                disconnect()  # before another job may have the run
                raise
            if saves_settings:
                run.folder.write_bytes("settings.json", f"{run.settings.model_dump_json(indent=2)}\n".encode())
    except KeyboardInterrupt:
        print(f"\n{job}: interrupted; run the same line again to go on.", file=sys.stderr)
        return 128 + signal.SIGINT
    except SystemExit as stop:
        # Ray's own handler, which exits with the signal's number, stands for a moment until ours is back.
        if not told_to_stop.is_set() and stop.code != signal.SIGTERM:
            raise
        print(f"\n{job}: told to stop; run the same line again to go on.", file=sys.stderr)
        return 128 + signal.SIGTERM
    except TakenOverError as error:
        print(f"error: {job} ended: {error}", file=sys.stderr)
        return 1
    except Exception as error:  # the one place where failures become exit codes
        found = input_error(error)
        if found is not None:
            print(f"error: {found}", file=sys.stderr)
            return 2
        traceback.print_exc()
        print(f"error: {job} failed: {error}", file=sys.stderr)
        return 1
    from ray_jobs.summary import print_summary

    print_summary(run, results)
    return 0


@contextlib.contextmanager
def _sigterm_is_system_exit(told: threading.Event) -> Iterator[None]:
    """Lets what the job holds be given back when it is told to stop, which `told` remembers.

    The exit's own code would not do: one that is raised while Ray waits for a task leaves Ray with code 1.
    """

    def stop(signum: int, frame: object) -> None:
        told.set()
        raise SystemExit(128 + signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _settings(path: str, overrides: Sequence[str]) -> Settings:
    try:
        if "://" in path:
            filesystem, place = resolve(path)
            with filesystem.open_input_stream(place) as stream:
                text = stream.read().decode()
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read: {reason}", where=path, fix="give --config one of configs/*.yaml.") from error
    return load_settings(text, path, overrides)


def input_error(error: BaseException | None) -> InputError | None:
    """The InputError behind an exception, also through the wrapping that Ray puts around those of its workers."""
    while error is not None:
        # Ray's RayTaskError poses as the exception it wraps, but prints the whole remote traceback.
        wrapped = getattr(error, "cause", None)
        if isinstance(error, InputError) and not isinstance(wrapped, BaseException):
            return error
        error = wrapped if isinstance(wrapped, BaseException) else error.__cause__
    return None
