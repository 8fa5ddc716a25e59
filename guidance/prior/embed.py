"""Embed a prompt where its text encoders are: python -m guidance.prior.embed --opt config/sd35.yaml --embeddings FOLDER

Takes the flags of train.py, embeds all texts of such a run, and prints the folder, which can be copied to a machine that
lacks the text encoders. There train.py takes it as --embeddings FOLDER.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import config as configuration
from config import ConfigError
from guidance.prior import PriorError, wanted_by
from guidance.prior.families import FAMILIES
from guidance.prior.pipeline_files import find_pipeline, pipeline_named
from utils.device import is_accelerator, resolve_device


def main(argv: Sequence[str]) -> int:
    """Embed the texts of a configuration; returns the exit status."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        config = configuration.load(argv)
        params, device = config.guidance, resolve_device(config.device)
        model_key = params.hf_key or params.model_key
        family = FAMILIES.get(pipeline_named(model_key))
        if family is None:
            raise PriorError(
                f"model_key '{model_key}' has a small text encoder, which embeds prompts as a run begins: nothing is to be kept."
            )
        half = params.fp16 and is_accelerator(device)
        wanted = wanted_by(config)
        embeddings = family.embeddings(find_pipeline(model_key, family.core, half=half), device, wanted)
        embeddings(wanted.texts)
    except (ConfigError, PriorError, ValueError, OSError) as error:
        print(f"guidance.prior.embed: {error}", file=sys.stderr)
        return 1
    print(f"The embeddings of {len(wanted.texts)} texts are in {embeddings.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
