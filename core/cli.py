"""The command line that every job shares, and its exit codes: 0 done, 1 failure, 2 bad input or settings."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core import logs
from core.errors import InputError
from core.filesystems import resolve_filesystem
from core.lock import LockLostError, run_lock
from core.ray_session import disconnect, load_plugins_everywhere
from core.registry import read_plugins
from core.run import Run, StageResult
from core.settings.loader import load_settings

if TYPE_CHECKING:
    from core.settings.schema import Settings


@dataclass(frozen=True)
class Job:
    """One job as the command line runs it.

    `reads` names the sections of settings that it reads; empty means all. `dry_run` returns the text that --dry-run
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
    """Parse the command line, run the job, print a summary; return the exit code."""
    options = _parse(job, arguments)
    logs.configure(logging.WARNING if options.quiet else logging.DEBUG if options.verbose else logging.INFO)
    stop_requested = threading.Event()
    try:
        load_plugins_everywhere(read_plugins(options.plugin))
        run = Run(_settings(options.config, options.set), options.force, options.force_unlock)
        dry_run = job.dry_run if job.dry_run is not None and options.dry_run else None
        needs_lock = job.own_run if dry_run is None else job.dry_run_packs
        with (
            _sigterm_is_system_exit(stop_requested),
            run_lock(run.folder, job.name, run.force_unlock) if needs_lock else contextlib.nullcontext(),
        ):
            if dry_run is not None:
                print(dry_run(run))
                return 0
            try:
                results = job.work(run)
            except BaseException:
                disconnect()  # before another job may have the run
                raise
            if job.saves_settings:
                run.folder.write_bytes("settings.json", f"{run.settings.model_dump_json(indent=2)}\n".encode())
    except KeyboardInterrupt:
        print(f"\n{job.name}: interrupted; run the same command again to resume.", file=sys.stderr)
        return 128 + signal.SIGINT
    except SystemExit as stop:
        # Ray's own handler, which exits with the signal's number, is in place until ours is back.
        if not stop_requested.is_set() and stop.code != signal.SIGTERM:
            raise
        print(f"\n{job.name}: stopped; run the same command again to resume.", file=sys.stderr)
        return 128 + signal.SIGTERM
    except LockLostError as error:
        print(f"error: {job.name} ended: {error}", file=sys.stderr)
        return 1
    except Exception as error:  # the one place where failures become exit codes
        bad_input = unwrap_input_error(error)
        if bad_input is not None:
            print(f"error: {bad_input}", file=sys.stderr)
            return 2
        traceback.print_exc()
        print(f"error: {job.name} failed: {error}", file=sys.stderr)
        return 1
    from core.summary import print_summary

    print_summary(run, results)
    return 0


def _parse(job: Job, arguments: Sequence[str] | None) -> argparse.Namespace:
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog=f"tiebreak {job.name}",
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
    parser.add_argument("--force-unlock", action="store_true", help="revoke another job's lock on the run")
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file with a feature family, booster engine, scoring mode, report section, vote format or "
        "shape to convert to; its code is run",
    )
    parser.add_argument("--quiet", action="store_true", help="log warnings and errors only")
    parser.add_argument("--verbose", action="store_true", help="log why a stage runs again, and what libraries log")
    if job.dry_run is not None:
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="print what the work would take, and do none of it"
            + (" (but tokens are counted, and kept for the work)" if job.dry_run_packs else ""),
        )
    if {"-h", "--help"} & set(given):
        from core.settings.reference import help_text

        parser.epilog = help_text(job.reads)
    return parser.parse_args(given)


@contextlib.contextmanager
def _sigterm_is_system_exit(stop_requested: threading.Event) -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that locks and clusters are released, and set `stop_requested`.

    The exit's own code is not enough. If it is raised while Ray waits for a task, Ray exits with code 1.
    """

    def stop(signum: int, frame: object) -> None:
        stop_requested.set()
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
            filesystem, place = resolve_filesystem(path)
            with filesystem.open_input_stream(place) as stream:
                text = stream.read().decode()
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read: {reason}", where=path, fix="give --config one of configs/*.yaml.") from error
    return load_settings(text, path, overrides)


def unwrap_input_error(error: BaseException | None) -> InputError | None:
    """Return the InputError behind an exception, also through the wrapping of Ray's workers; None if there is none."""
    while error is not None:
        # Ray's RayTaskError is an instance of the exception it wraps, but prints the whole remote traceback.
        wrapped = getattr(error, "cause", None)
        if isinstance(error, InputError) and not isinstance(wrapped, BaseException):
            return error
        error = wrapped if isinstance(wrapped, BaseException) else error.__cause__
    return None
