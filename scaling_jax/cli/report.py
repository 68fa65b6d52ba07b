"""Fits the laws to a study and writes its report: one HTML page, with figures beside it.

Writes fits.json, decision.json, report.html and figures/ into the study folder and prints the fits with
their intervals, the held-out errors and the crossings. Does nothing twice: a second call on an
unchanged study recomputes nothing.
"""

SUMMARY = "fit the laws to a study and write its report"
EXAMPLE = "  scaling-jax report runs/quickstart"


def add_arguments(parser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("study", metavar="STUDY", help="folder that `scaling-jax study` wrote")
    parser.add_argument("--out", metavar="FILE", help="where the page goes (default: STUDY/report.html)")
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="draws behind every interval (default: 1000)",
    )
    parser.add_argument(
        "--law",
        default="",
        metavar="A,B",
        help="further laws to fit and show, e.g. rectified_multiplicative or path/to/file.py:name",
    )


def run(arguments) -> int:
    """Brings the report up to date and prints the summary and the path of the page."""
    from scaling_jax.reports.update import update_report

    laws = tuple(name.strip() for name in arguments.law.split(",") if name.strip())
    update = update_report(arguments.study, arguments.out, arguments.bootstrap, laws)
    print(update.summary)
    if not update.fitted:
        print("\nresults.csv and study.json are unchanged: the fits above were kept, nothing was recomputed")
    print(f"\nreport: {update.page}")
    return 0
