"""Text documents of an exact number of tokens, the same for hooke and for PyTorch."""

import json
from pathlib import Path

from tokenizers import Tokenizer


def read_text(path: Path) -> str:
    """All of a plain file, or the `text` fields of a JSONL file."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".jsonl":
        return content
    return "\n".join(json.loads(line)["text"] for line in content.splitlines())


def special_ids(model: Path, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """What a text row gets around it: the tokenizer's BOS, if it has one, and its EOS."""
    config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))

    def ids(key: str) -> list[int]:
        token = config.get(key)
        token = token["content"] if isinstance(token, dict) else token
        return [] if token is None else [tokenizer.token_to_id(token)]

    return ids("bos_token"), ids("eos_token")


def make_documents(model: Path, text: str, count: int, length: int) -> list[tuple[str, list[int]]]:
    """`count` (text, ids) pairs, each of exactly `length` ids with BOS and EOS."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    bos, eos = special_ids(model, tokenizer)
    body = length - len(bos) - len(eos)
    stream = tokenizer.encode(text, add_special_tokens=False).ids
    documents: list[tuple[str, list[int]]] = []
    start = 0
    while len(documents) < count:
        if start + body > len(stream):
            raise SystemExit(f"the text has too few tokens for {count} documents of {length}")
        piece = tokenizer.decode(stream[start : start + body], skip_special_tokens=False)
        ids = tokenizer.encode(piece, add_special_tokens=False).ids
        # A cut in the middle of a word or character may tokenize differently: move on by one.
        if len(ids) == body:
            documents.append((piece, [*bos, *ids, *eos]))
            start += body
        else:
            start += 1
    return documents


def write_documents(documents: list[tuple[str, list[int]]], directory: Path) -> tuple[Path, Path]:
    """The JSONL for hooke and the ids for PyTorch."""
    rows, ids = directory / "train.jsonl", directory / "ids.json"
    lines = (json.dumps({"text": text}, ensure_ascii=False) for text, _ in documents)
    rows.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    ids.write_text(json.dumps([row for _, row in documents]))
    return rows, ids
