"""Where things lie: beside a checkout of the repository, or, in an installed package, in the user's own folder."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the repository
