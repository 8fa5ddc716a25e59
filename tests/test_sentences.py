"""Sentences of the pages, which can be read at one go."""

from __future__ import annotations

from tests import sentences

TEXT = """---
title: not counted at all
---
# No Sentence here

One two `three words here` four, as
in Fig. 3 (Yu et al. 2024). Here a [new one](https://example.org/a.html) begins: it holds $a + b = c$. **Third!**

```bash
no sentence. None at all.
```

| a table | has none. |
|---|---|
- an item without a stop
- another item,
  of two lines. 3 of them (<b>e.g. this</b>) count

    indented code. Is none.

![a picture. Of this](a.jpg) = Last
"""


def test_it_counts_what_a_reader_would() -> None:
    found = sentences.sentences(TEXT)
    assert [sentences.words(each) for each in found] == [12, 8, 1, 5, 5, 6, 1], found


def test_no_sentence_is_too_long() -> None:
    assert sentences.main(sentences.pages()) == 0
