"""The length of the sentences in the pages: python -m tests.sentences [FILES]

Prints for each file its sentences, their mean number of words, and the longest with its beginning. Then come every
sentence of more than 35 words, and the mean of all. The exit status is 1 for such a
sentence, or for a mean of more than 17 words.

Only paragraphs and list items count: no headings, tables, code, pictures or link targets. A code span or a formula is
one word.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONGEST, MEAN = 35, 17

# In this order: what is replaced first cannot look like markup to what follows.
MARKUP = [
    (r"\A---\n.*?\n---\n", ""),  # front matter
    (r"^([ \t]*)(`{3,}|~{3,}).*?^\1\2[ \t]*$", "\n"),
    (r"\$\$.*?\$\$", "Math"),
    (r"(`+)(?!`).+?(?<!`)\1(?!`)", "Code"),
    (r"\$(?=\S)[^$\n]+?\$", "Math"),
    (r"<!--.*?-->", ""),
    (r"</?[A-Za-z][^<>]*>", ""),
    (r"!\[[^\]]*\]\([^)]*\)", ""),
    (r"\[([^\]]*)\]\([^)]*\)", r"\1"),  # a link, of which the text stays
    (r"\b(e\.g|i\.e|Figs?|Eqs?|Secs?|et al|vs)\.", r"\1"),
]
NO_SENTENCES = re.compile(r"\s*$|\s*#{1,6} |\s*\||\s*\[[^\]]+\]: ")
LIST_MARKER = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")
END = re.compile(r"""[.!?]["')*_]*\s+(?![a-z])""")


def blocks(text: str) -> Iterator[str]:
    """Yield the paragraphs and list items of a Markdown text, each on one line and without markup."""
    for pattern, by in MARKUP:
        text = re.sub(pattern, by, text, flags=re.DOTALL | re.MULTILINE)
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        item = LIST_MARKER.match(line)
        if block and (item or NO_SENTENCES.match(line)):
            yield " ".join(block)
            block = []
        indented_code = not block and not item and line.startswith("    ")
        if not NO_SENTENCES.match(line) and not indented_code:
            block.append((line[item.end() :] if item else line).strip(" >"))


def sentences(text: str) -> list[str]:
    """The sentences of a Markdown text that have a word in them."""
    return [each for block in blocks(text) for each in END.split(block) if words(each)]


def words(sentence: str) -> int:
    """Number of a sentence's words: signs that stand alone are none."""
    return sum(bool(re.search(r"\w", token)) for token in sentence.split())


def pages() -> list[Path]:
    """Paths of README.md, CONTRIBUTING.md and the pages under docs/."""
    beside = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
    return [*(page for page in beside if page.exists()), *sorted((ROOT / "docs").glob("*.md"))]


def main(paths: Sequence[Path]) -> int:
    """Print the table of the files; return the exit status."""
    every: list[str] = []
    for path in paths:
        found = sentences(path.read_text(encoding="utf-8"))
        every += found
        longest = max(found, key=words, default="")
        mean = sum(map(words, found)) / max(len(found), 1)
        print(
            f"{path.name:22} {len(found):4} sentences, {mean:4.1f} words; {words(longest):3}: {longest[:60]}"
        )
    long = [each for each in every if words(each) > LONGEST]
    for each in long:
        print(f"{words(each)} words: {each}")
    mean = sum(map(words, every)) / max(len(every), 1)
    print(f"{len(every)} sentences, {mean:.1f} words (at most {MEAN}); {len(long)} of more than {LONGEST}")
    return int(bool(long) or mean > MEAN)


if __name__ == "__main__":
    sys.exit(main([Path(name) for name in sys.argv[1:]] or pages()))
