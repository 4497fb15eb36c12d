"""Run glmplan as ``python -m glmplan``."""

from glmplan.cli import main

if __name__ == "__main__":
    main()
