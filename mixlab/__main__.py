"""The command line, also as python -m mixlab: see `mixlab --help`."""

import argparse
import os
import signal
import subprocess
import sys


class Terminated(KeyboardInterrupt):
    """SIGTERM, which `timeout` and job queues send: to be obeyed as Ctrl-C is."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status is 0 when all is well."""
    options = _parser().parse_args(arguments)
    try:
        status = options.run(options)
        sys.stdout.flush()  # here, where a reader that has gone is noticed
        return status
    except ValueError as problem:
        print(f"mixlab: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"mixlab: {stop if str(stop) else 'stopped'}", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:  # `mixlab report | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as problem:
        print(f"mixlab: {problem}", file=sys.stderr)
        return 1


def _doctor(options) -> int:
    from mixlab.course.doctor import examine

    return examine()


def _work(options) -> int:
    from mixlab.course import work

    work.copy(options.folder)
    return 0


def _grade(options) -> int:
    from mixlab.course import grading

    return grading.grade(options.folder, options.csv, options.seed)


def _notebooks(options) -> int:
    from mixlab.course import build

    return build.run(options.names, save=options.save)


def _site(options) -> int:
    from mixlab.course import site

    return site.run()


def _terminate(number, frame) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `timeout` sends it to the workers too: the first is obeyed
    raise Terminated


def _run(options) -> int:
    signal.signal(signal.SIGTERM, _terminate)
    if options.workers > 1:
        return _share(options.workers)
    from mixlab.results import records, runs

    how = {"precision": options.precision, "compile": options.compile}
    folder = options.folder
    if options.grid:
        _refuse_beside(options, "--grid", "data", "table", "model", "method", "recipe", "seeds")
        wanted = runs.from_grid(options.grid)
        folder = folder or records.folder_of(options.grid)
    elif options.table:
        _refuse_beside(options, "--table", "model", "method")
        wanted = runs.from_table(options.table, options.recipe, options.seeds or [0], options.data, **how)
    elif options.data:
        words = (options.data, options.model or "quick_resnet", options.method or "ERM()", options.recipe or "quick")
        wanted = [runs.make_run(*words, seed, **how) for seed in options.seeds or [0]]
    else:
        raise ValueError("run needs --data (with --method), --table or --grid")
    folder = folder or records.FOLDER
    keep, retry = options.keep == "weights", options.retry
    left = runs.do(wanted, folder, options.device, options.minutes, keep=keep, retry=retry)
    print(f"{len(wanted) - left} of {len(wanted)} runs have a record" + f"; {left} wait for next time" * bool(left))
    return 0


def _refuse_beside(options, this: str, *others: str) -> None:
    given = [f"--{other}" for other in others if getattr(options, other) is not None]
    if given:
        raise ValueError(f"{this} says that itself: leave out {', '.join(given)}")


def _share(count: int) -> int:
    """The same command in `count` processes with one thread each: on a CPU they do more than one process with all."""
    words = sys.argv[1:]
    place = next(i for i, word in enumerate(words) if word.startswith("--workers"))
    words[place : place + (1 if "=" in words[place] else 2)] = []
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    workers = []
    try:
        for rank in range(count):
            environment = {**os.environ, **one_thread, "RANK": str(rank), "MIXLAB_WORKER": f"[{rank}] "}
            workers.append(subprocess.Popen([sys.executable, "-m", "mixlab", *words], env=environment))
        return max(worker.wait() for worker in workers)
    except KeyboardInterrupt as stop:  # the workers say where they stopped
        for worker in workers:
            worker.send_signal(signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
        for worker in workers:
            worker.wait()
        raise


def _rehearse(options) -> int:
    from mixlab.results.expressions import build_method, usual_methods
    from mixlab.training.rehearse import COMBINED, rehearse

    how = {"device": options.device, "precision": options.precision, "minutes": options.minutes, "model": options.model}
    return rehearse([*usual_methods(), *COMBINED], build_method, **how)


def _look(options) -> int:
    from mixlab.results.kept import look

    print(f"{look(options.folder)} networks measured")
    return 0


def _report(options) -> int:
    from mixlab.results import papers, records, report

    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that knows no ± still gets its numbers
    if options.commands:
        print(report.todo(report.compare(papers.rows_of(options.table), [])))
        return 0
    runs, complaints = records.read()
    lines = report.compare(papers.rows_of(options.table), runs)
    shown = lines if options.all else [line for line in lines if line["n"]]
    if options.csv:
        print(report.as_csv(shown), end="")
        return 0
    failed = [complaint for complaint in complaints if ".json: failed, " in complaint]
    for complaint in complaints:
        if complaint not in failed:
            print(f"not used: {complaint}", file=sys.stderr)
    print(report.summary(lines, len(runs), [complaint.partition(":")[0] for complaint in failed]) + "\n")
    if options.missing:
        print(report.todo(lines, options.recipe, _stopwatch(runs)))
    else:
        print(report.as_text(shown))
    return 0


def _stopwatch(measured: list[dict]):
    """A call that says about how many seconds a run takes on this device, by the records made on it."""
    from mixlab.results import records, runs
    from mixlab.training.device import default_device

    device = records.circumstances(default_device())["device"]
    timed = [r for r in measured if isinstance(r.get("seconds"), int | float) and isinstance(r.get("curve"), list)]
    return lambda run: runs.estimate(run, timed, device)


def _parser() -> argparse.ArgumentParser:
    from mixlab import __version__

    parser = argparse.ArgumentParser(prog="mixlab", description="The course's command line.")
    parser.add_argument("--version", action="version", version=f"mixlab {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    doctor = commands.add_parser("doctor", help="check the machine, one line per thing you may trip over")
    doctor.set_defaults(run=_doctor)
    notebooks = commands.add_parser("notebooks", help="execute the course; copies land in build/notebooks")
    notebooks.add_argument("names", nargs="*", help="notebooks to run, for instance 01_mixup (all, if none is named)")
    notebooks.add_argument("--save", action="store_true", help="store the outputs too, and cut the exercises")
    notebooks.set_defaults(run=_notebooks)
    site = commands.add_parser(
        "site", help="the pages of the course, from the committed notebooks: build/html/index.html"
    )
    site.set_defaults(run=_site)
    work = commands.add_parser("work", help="copy the lessons to a folder of your own, where you solve the exercises")
    work.add_argument("folder", nargs="?", default="work", help="the folder (work); your own files in it are kept")
    work.set_defaults(run=_work)
    grade = commands.add_parser("grade", help="what is right in a folder of submitted notebooks, as a table")
    grade.add_argument("folder", help="the folder; notebooks in folders below it count too")
    grade.add_argument("--csv", default="grades.csv", help="the table, a row for each notebook (grades.csv)")
    grade.add_argument("--seed", required=True, help="a secret word, from which the cases are drawn")
    grade.set_defaults(run=_grade)
    report = commands.add_parser("report", help="published numbers beside measured ones")
    report.add_argument("table", nargs="?", help="paper or paper/table, for instance kmixup/table9a")
    report.add_argument("--all", action="store_true", help="also show the cells that nobody has run")
    report.add_argument("--csv", action="store_true", help="the same lines for a spreadsheet")
    report.add_argument("--missing", action="store_true", help="runs that would fill empty cells, and their time here")
    report.add_argument("--recipe", help="with --missing: the budget to count with (each row's own protocol)")
    report.add_argument("--commands", action="store_true", help="all published tables, and what runs each of them")
    report.set_defaults(run=_report)
    _add_run(commands)
    look = commands.add_parser("look", help="measure kept networks once more: where they look, attacks through another")
    look.add_argument("folder", help="records with their weights, of `run --keep weights`")
    look.set_defaults(run=_look)
    rehearse = commands.add_parser("rehearse", help="does every method train on this device, and how fast?")
    rehearse.add_argument("--minutes", type=float, default=3.0, help="the time there is (3)")
    rehearse.add_argument("--device", help="cpu, cuda, cuda:1 (the GPU, if there is one)")
    rehearse.add_argument("--precision", choices=("bf16", "float32"), help="(bf16 where the device multiplies in it)")
    rehearse.add_argument("--model", help="a network (quick_resnet on a CPU, preact_resnet18 on a GPU)")
    rehearse.set_defaults(run=_rehearse)
    return parser


def _add_run(commands) -> None:
    run = commands.add_parser("run", help="train what has no record yet; one run, a published table, or a grid")
    run.add_argument("--data", help="shapes, cifar10, … or with options: 'cifar10(fraction=0.1, random_labels=0.4)'")
    run.add_argument("--model", help="a network, perhaps with stem_stride=2 in brackets (quick_resnet)")
    run.add_argument("--method", help="an expression such as 'LabelSmoothing(0.1, Mixup(1.0))' (ERM())")
    run.add_argument("--recipe", help="a budget, or 'tenth(epochs=200)' (quick; for --table each row's own)")
    run.add_argument("--seeds", type=int, nargs="+", help="whole numbers (0)")
    run.add_argument("--table", help="the runs that answer a published table, for instance kmixup/table10")
    run.add_argument("--grid", help="a JSON file with lists data, model, method, recipe, and a number seeds")
    run.add_argument("--minutes", type=float, help="stop cleanly before that time is up (no limit)")
    run.add_argument("--device", help="cpu, cuda, cuda:1 (the GPU of this worker, if there is one)")
    run.add_argument("--precision", choices=("bf16", "float32"), help="(bf16 where the device multiplies in it)")
    run.add_argument("--compile", action="store_true", help="train through torch.compile")
    run.add_argument("--workers", type=int, default=1, help="processes of one thread each that share the list (1)")
    run.add_argument("--keep", choices=("weights",), help="store the final weights beside the record")
    run.add_argument("--retry", action="store_true", help="run again what is recorded as failed")
    run.add_argument("--folder", help="where records go (data/runs, or the grid's own folder)")
    run.set_defaults(run=_run)


if __name__ == "__main__":
    sys.exit(main())
