"""The command line that every job shares, and its exit codes: 0 done, 1 failure, 2 bad input or settings."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import InputError
from core.filesystems import resolve
from core.lock import TakenOverError, locked
from core.run import Run, StageResult, disconnect
from core.settings.loader import load_settings

if TYPE_CHECKING:
    from core.settings.schema import Settings


@dataclass(frozen=True)
class Job:
    """One job as the command line runs it.

    `reads` names the sections of settings that it reads, all of them if empty. `dry_run` gives the text that --dry-run
    prints. With `dry_run_packs` the dry run writes token counts to the run, so it takes the run's lock. Without
    `own_run` the job reads a run that others made and takes no lock. With `saves_settings` it saves the run's settings
    when it has ended well.
    """

    name: str
    description: str | None
    work: Callable[[Run], list[StageResult]]
    reads: Sequence[str] = ()
    dry_run: Callable[[Run], str] | None = None
    dry_run_packs: bool = False
    own_run: bool = True
    saves_settings: bool = True


def main(job: Job, arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run the job, print what it did; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=f"python -m ray_jobs.{job.name}",
        description=job.description,
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
    if job.dry_run is not None:
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="say what the work would take, and do none of it"
            + (" (but tokens are counted, and kept for the work)" if job.dry_run_packs else ""),
        )
    options = parser.parse_args(arguments)
    told_to_stop = threading.Event()
    try:
        run = Run(_settings(options.config, options.set), options.force, options.take_over)
        asked = job.dry_run if job.dry_run is not None and options.dry_run else None
        holds = job.own_run if asked is None else job.dry_run_packs
        with (
            _sigterm_is_system_exit(told_to_stop),
            locked(run.folder, job.name, run.take_over) if holds else contextlib.nullcontext(),
        ):
            if asked is not None:
                print(asked(run))
                return 0
            try:
                results = job.work(run)
            except BaseException:
                disconnect()  # before another job may have the run
                raise
            if job.saves_settings:
                run.folder.write_bytes("settings.json", f"{run.settings.model_dump_json(indent=2)}\n".encode())
    except KeyboardInterrupt:
        print(f"\n{job.name}: interrupted; run the same line again to go on.", file=sys.stderr)
        return 128 + signal.SIGINT
    except SystemExit as stop:
        # Ray's own handler, which exits with the signal's number, stands for a moment until ours is back.
        if not told_to_stop.is_set() and stop.code != signal.SIGTERM:
            raise
        print(f"\n{job.name}: told to stop; run the same line again to go on.", file=sys.stderr)
        return 128 + signal.SIGTERM
    except TakenOverError as error:
        print(f"error: {job.name} ended: {error}", file=sys.stderr)
        return 1
    except Exception as error:  # the one place where failures become exit codes
        found = input_error(error)
        if found is not None:
            print(f"error: {found}", file=sys.stderr)
            return 2
        traceback.print_exc()
        print(f"error: {job.name} failed: {error}", file=sys.stderr)
        return 1
    from core.summary import print_summary

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
