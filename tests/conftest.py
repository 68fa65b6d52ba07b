"""Options that every test sees."""


def pytest_addoption(parser):
    parser.addoption(
        "--require_extras",
        default="",
        metavar="EXTRA[,EXTRA]",
        help="extras of setup.py that this environment must have; without it, missing ones are skipped",
    )
