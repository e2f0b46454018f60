"""Writes tests/golden/chat: what transformers renders, tokenizes and marks as the assistant's.

Same environment as golden.py, whose header says how to make it. For every family of
golden_chat_families.py a directory holds a small tokenizer, its template and cases.json:

    {"cases": [{"name", "messages", "text", "prompt", "ids", "mask"}]}

`text` is the rendered conversation, `prompt` the same with add_generation_prompt, `ids` its tokens
and `mask` 1 for each token that overlaps what the assistant wrote, its end-of-turn token included.
The mask comes from transformers' return_assistant_tokens_mask, on a copy of the template that has
{% generation %} tags. A token that spans the header's last newline and the first characters of the
answer counts as the assistant's, as transformers has it.
"""

import argparse
import json
from pathlib import Path

from golden_chat_cases import CASES
from golden_chat_families import FAMILIES, Family
from tokenizers import AddedToken, Tokenizer, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

REPOSITORY = Path(__file__).resolve().parent.parent
VOCAB_SIZE = 480

# Without digits and contractions in the text no merge would tell the split patterns apart.
NUMBERS_AND_CONTRACTIONS = " ".join(f"{n} I'll we've she's {n * n}" for n in range(400))


def train_tokenizer(family: Family, text: str) -> Tokenizer:
    """A byte-level BPE of the family, with its special tokens on the family's side of the ids."""
    tokenizer = family.untrained()
    special = [AddedToken(token, special=True, normalized=False) for token in family.special]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=special if family.special_first else [],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    if not family.special_first:
        tokenizer.add_special_tokens(special)
    family.finish(tokenizer)
    return tokenizer


def write_tokenizer(family: Family, text: str, directory: Path) -> None:
    """tokenizer.json and tokenizer_config.json.

    The template with generation tags ships as chat_template.jinja, the file newer checkpoints use,
    the others inside tokenizer_config.json.
    """
    directory.mkdir(parents=True, exist_ok=True)
    train_tokenizer(family, text).save(str(directory / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": family.bos,
        "eos_token": family.eos,
        "pad_token": family.pad,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
    }
    template = family.template(family.ships_generation_tags)
    if family.ships_generation_tags:
        (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    else:
        config["chat_template"] = template
    write_json(directory / "tokenizer_config.json", config, indent=2)


def write_json(path: Path, value, indent: int | None = None) -> None:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def make_case(tokenizer, family: Family, name: str, messages: list[dict]) -> dict:
    """What transformers makes of one conversation, checked against an independent reading."""
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer.apply_chat_template(messages)["input_ids"]
    marked = tokenizer.apply_chat_template(
        messages,
        chat_template=family.template(generation_tags=True),
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    if marked["input_ids"] != ids:
        raise AssertionError(f"{name}: the generation tags change the text")
    mask = marked["assistant_masks"]
    check_mask(tokenizer, family, name, messages, ids, mask)
    return {
        "name": name,
        "messages": messages,
        "text": text,
        "prompt": prompt,
        "ids": ids,
        "mask": mask,
    }


def check_mask(tokenizer, family: Family, name: str, messages, ids, mask) -> None:
    """Every assistant message gives one run of trained tokens, which ends with its end-of-turn and
    decodes to its content, or to the header's newline and its content where a token spans both."""
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    runs: list[list[int]] = []
    for i, (token, trained) in enumerate(zip(ids, mask, strict=True)):
        if trained and (i == 0 or not mask[i - 1]):
            runs.append([])
        if trained:
            runs[-1].append(token)
    decoded = [tokenizer.decode(run) for run in runs]
    if len(decoded) != len(answers):
        raise AssertionError(f"{name}: {len(answers)} answers but trained runs {decoded}")
    for run, answer in zip(decoded, answers, strict=True):
        answer = answer.strip() if family.name == "llama3" else answer
        if tokenizer.backend_tokenizer.normalizer is not None:
            answer = tokenizer.backend_tokenizer.normalizer.normalize_str(answer)
        if run not in (answer + family.eos, "\n" + answer + family.eos):
            raise AssertionError(f"{name}: trained {run!r}, the assistant wrote {answer!r}")
        if run != answer + family.eos:
            print(f"{family.name}: {name}: a token spans the header's newline and the answer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "tests/golden/chat")
    parser.add_argument("--text", type=Path, required=True, help="English text to learn merges of")
    args = parser.parse_args()
    text = args.text.read_text(encoding="utf-8")[:20_000] + NUMBERS_AND_CONTRACTIONS
    for family in FAMILIES:
        directory = args.out / family.name
        write_tokenizer(family, text, directory)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
        cases = [make_case(tokenizer, family, name, turns) for name, turns in CASES.items()]
        write_json(directory / "cases.json", {"cases": cases})
        print(f"{family.name}: {len(tokenizer)} tokens, {len(cases)} cases")


if __name__ == "__main__":
    main()
