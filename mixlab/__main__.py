"""The command line: python -m mixlab doctor | notebooks | report | bench."""

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
    from mixlab.doctor import examine

    return examine()


def _notebooks(options) -> int:
    from mixlab import course

    return course.run(options.names, save=options.save)


def _report(options) -> int:
    from mixlab import papers, records

    runs, complaints = records.read()
    for complaint in complaints:
        print(f"not used: {complaint}", file=sys.stderr)
    for name in [options.table.split("/")[0]] if options.table else papers.names():
        published = papers.rows(name, *options.table.split("/")[1:] if options.table else ())
        lines = records.compare(published, runs)
        print(records.as_markdown(lines if options.all else [line for line in lines if line["n"]] or lines[:0]))
        print(f"{name}: {sum(line['n'] > 0 for line in lines)} of {len(lines)} cells measured\n")
    return 0


def _bench(options) -> int:
    from mixlab import bench

    return bench.run(options.what)


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
    report.add_argument("--all", action="store_true", help="also show the cells that nobody has run")
    report.set_defaults(run=_report)
    bench = commands.add_parser("bench", help="measure speed beside other libraries")
    bench.add_argument("what", choices=("mixing", "sweep"))
    bench.set_defaults(run=_bench)
    return parser


if __name__ == "__main__":
    sys.exit(main())
