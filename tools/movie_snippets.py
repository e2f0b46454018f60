"""Writes tests/data/movie-snippets: positive film-review snippets for the quick start.

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    python3 tools/movie_snippets.py vaderSentiment-3.3.2.tar.gz

Needs nothing but Python. The choice depends on the texts alone: snippets scored above MIN_SCORE by
at least twenty readers, one of each set of texts that differ only in case, spacing or punctuation,
in the order of their SHA-256, which is as good as random and needs no seed. The first ones train,
the next ones are held out.
"""

import argparse
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
TABLE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
LICENSE = "vaderSentiment-3.3.2/LICENSE.txt"
MIN_SCORE = 0.5
TRAIN, HELDOUT = 2000, 300
OUT = Path(__file__).resolve().parent.parent / "tests/data/movie-snippets"

NOTICE = """\
The rows of train.jsonl and heldout.jsonl are snippets of film reviews, a sentence or two each, from
the PyPI source distribution of vaderSentiment 3.3.2, MIT licence, reproduced below; in it

    {archive}
    {table}

Its authors took them from rotten.tomatoes.com by way of Pang & Lee (2004), and had each rated by at
least twenty readers from -4 (very negative) to 4 (very positive). They are short quotations of
published reviews. Please cite

    Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment
    Analysis of Social Media Text. Eighth International Conference on Weblogs and Social Media.

Chosen by tools/movie_snippets.py: mean rating above {score}, runs of white space made one space,
one of each set of texts equal up to case, spacing and punctuation, sorted by the SHA-256 of the
text; of {candidates} eligible ones the first {train} are train.jsonl, the next {heldout}
heldout.jsonl.

------------------------------------------------------------------------------------------------

{license}
"""


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """The bytes of one file of an archive."""
    file = archive.extractfile(name)
    if file is None:
        raise SystemExit(f"{name} is not a file of the archive")
    return file.read()


def snippets(table: str) -> Iterator[tuple[float, str]]:
    """(mean rating, text with single spaces) of each row `id TAB rating TAB text`."""
    for line in table.splitlines():
        _, score, text = line.split("\t", 2)
        yield float(score), " ".join(text.split())


def positive(rows: Iterator[tuple[float, str]]) -> list[str]:
    """The eligible texts in the order of their hash, without near-duplicates."""
    chosen: dict[str, str] = {}
    for score, text in rows:
        key = re.sub(r"\W", "", text).casefold()
        if score > MIN_SCORE and key:
            chosen.setdefault(key, text)
    return sorted(chosen.values(), key=lambda text: hashlib.sha256(text.encode()).digest())


def write_rows(path: Path, texts: list[str]) -> None:
    rows = (json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sdist", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    data = args.sdist.read_bytes()
    if hashlib.sha256(data).hexdigest() != SDIST_SHA256:
        raise SystemExit(f"{args.sdist}: not the vaderSentiment 3.3.2 sdist (SHA-256 differs)")
    with tarfile.open(fileobj=io.BytesIO(data)) as outer:
        license_text = member(outer, LICENSE).decode("utf-8").replace("\r\n", "\n").strip()
        with tarfile.open(fileobj=io.BytesIO(member(outer, ARCHIVE))) as inner:
            table = member(inner, TABLE).decode("utf-8")
    texts = positive(snippets(table))
    args.out.mkdir(parents=True, exist_ok=True)
    write_rows(args.out / "train.jsonl", texts[:TRAIN])
    write_rows(args.out / "heldout.jsonl", texts[TRAIN : TRAIN + HELDOUT])
    notice = NOTICE.format(
        archive=ARCHIVE,
        table=TABLE,
        score=MIN_SCORE,
        train=TRAIN,
        heldout=HELDOUT,
        candidates=len(texts),
        license=license_text,
    )
    (args.out / "NOTICE").write_text(notice, encoding="utf-8")
    print(f"{len(texts)} eligible snippets; {TRAIN} to train, {HELDOUT} held out, in {args.out}")


if __name__ == "__main__":
    main()
