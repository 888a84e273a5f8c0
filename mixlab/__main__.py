"""The command line: python -m mixlab doctor | notebooks | run | report."""

import argparse
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status is 0 when all is well."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except ValueError as problem:
        print(f"mixlab: {problem}", file=sys.stderr)
        return 2


def _doctor(options) -> int:
    from mixlab.course.doctor import examine

    return examine()


def _notebooks(options) -> int:
    from mixlab.course import build as course

    return course.run(options.names, save=options.save)


def _run(options) -> int:
    from mixlab.results import runs

    if options.table:
        wanted = runs.from_table(options.table, options.recipe, options.seeds, options.data)
    elif options.grid:
        wanted = runs.from_grid(options.grid)
    elif options.data:
        wanted = [runs.make_run(options.data, options.model, options.method, options.recipe, s) for s in options.seeds]
    else:
        raise ValueError("run needs --data (with --method), --table or --grid")
    folder = options.folder or runs.records.FOLDER
    left = runs.do(wanted, folder, options.device, options.minutes, compile=options.compile)
    print(f"{len(wanted) - left} of {len(wanted)} runs have a record" + f"; {left} wait for next time" * bool(left))
    return 0


def _report(options) -> int:
    from mixlab.results import papers, records

    runs, complaints = records.read()
    for complaint in complaints:
        print(f"not used: {complaint}", file=sys.stderr)
    if options.missing:
        return _missing(options, runs)
    for name in [options.table.split("/")[0]] if options.table else papers.names():
        published = papers.rows(name, *options.table.split("/")[1:] if options.table else ())
        lines = records.compare(published, runs)
        print(records.as_markdown(lines if options.all else [line for line in lines if line["n"]] or lines[:0]))
        print("{}: {} of {} cells measured\n".format(name, *records.count_cells(lines)))
    return 0


def _missing(options, done) -> int:
    """Table by table, the runs that would fill empty cells, about how long they take here, and the command."""
    from mixlab.results import papers, runs

    device = runs.default_device()
    known_tables = [f"{paper}/{table['id']}" for paper in papers.names() for table in papers.tables(paper)]
    for table in [options.table] if options.table else known_tables:
        try:
            wanted = [run for run in runs.from_table(table, options.recipe, [0]) if not run.path().exists()]
        except ValueError:
            if options.table:
                raise
            continue  # nothing in it that the module can run yet
        known = [runs.estimate(run, device, done) for run in wanted]
        seconds = [s for s in known if s is not None]
        if seconds:
            told = f"about {len(wanted) * sum(seconds) / len(seconds) / 60:.0f} min"
        else:
            told = "time unknown on this device until one has run"
        print(f"{table:28} {len(wanted):3} runs missing, {options.recipe}: {told}")
        print(f"    python -m mixlab run --table {table} --recipe {options.recipe}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mixlab", description="The course's command line.")
    commands = parser.add_subparsers(required=True, metavar="command")
    doctor = commands.add_parser("doctor", help="check the machine, one line per thing you may trip over")
    doctor.set_defaults(run=_doctor)
    notebooks = commands.add_parser("notebooks", help="execute the course; pages land in build/html")
    notebooks.add_argument("names", nargs="*", help="notebooks to run, for instance 01_mixup (all, if none is named)")
    notebooks.add_argument("--save", action="store_true", help="store the outputs too, and cut the exercises")
    notebooks.set_defaults(run=_notebooks)
    report = commands.add_parser("report", help="published numbers beside measured ones")
    report.add_argument("table", nargs="?", help="paper or paper/table, for instance kmixup/table9a")
    report.add_argument("--missing", action="store_true", help="what is worth running next, and how long it takes here")
    report.add_argument("--recipe", default="short30", help="with --missing: the budget to count with")
    report.add_argument("--all", action="store_true", help="also show the cells that nobody has run")
    report.set_defaults(run=_report)
    _add_run(commands)
    return parser


def _add_run(commands) -> None:
    run = commands.add_parser("run", help="train what has no record yet; one run, a published table, or a grid")
    run.add_argument("--data", help="shapes, cifar10, …, or with options: 'shapes(n_train=4000)'")
    run.add_argument("--model", default="quick_resnet")
    run.add_argument("--method", default="ERM()", help="an expression such as 'LabelSmoothing(0.1, Mixup(1.0))'")
    run.add_argument("--recipe", default="quick")
    run.add_argument("--seeds", type=int, nargs="+", default=[0])
    run.add_argument("--table", help="the runs that answer a published table, for instance kmixup/table10")
    run.add_argument("--grid", help="a JSON file with lists data, model, method, recipe, and a number seeds")
    run.add_argument("--minutes", type=float, help="stop cleanly before that time is up")
    run.add_argument("--device", help="cpu, cuda, cuda:1; by default the GPU of this worker, if there is one")
    run.add_argument("--compile", action="store_true", help="train through torch.compile")
    run.add_argument("--folder", help="where records go (data/runs)")
    run.set_defaults(run=_run)


if __name__ == "__main__":
    sys.exit(main())
