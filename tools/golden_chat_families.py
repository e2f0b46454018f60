"""The tokenizer pipelines and chat formats of three model families, in miniature.

The pre-tokenizers, normalizers and post-processors are the families' own, because that is where
implementations differ; only the merges are few, learnt from a few kilobytes of text. The chat
templates were written for this project in each family's format.
"""

from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")

# GEN and END stand for {% generation %} tags, kept or removed by `Family.template`.
CHATML = """\
{%- for message in messages %}
{%- if loop.first and message['role'] != 'system' %}
{{- '<|im_start|>system\\nYou are a small and friendly assistant.<|im_end|>\\n' }}
{%- endif %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}GEN{{- message['content'] + '<|im_end|>' }}END
{%- else %}{{- message['content'] + '<|im_end|>' }}
{%- endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

LLAMA3 = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{%- if message['role'] == 'assistant' %}GEN{{- message['content'] | trim + '<|eot_id|>' }}END
{%- else %}{{- message['content'] | trim + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

QWEN = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a helpful miniature.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if message.content %}GEN{{- message.content + '<|im_end|>' }}END
        {%- else %}GEN{{- '<|im_end|>' }}END
        {%- endif %}
        {{- '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""


@dataclass(frozen=True)
class Family:
    """How one family tokenizes and formats a chat. `special` ids follow the learnt vocabulary,
    or precede it where the family has it so."""

    name: str
    source: str
    special: tuple[str, ...]
    special_first: bool
    bos: str | None
    eos: str
    pad: str
    ships_generation_tags: bool = False

    def template(self, generation_tags: bool) -> str:
        """The Jinja text, with or without the tags that mark what the assistant wrote."""
        gen, end = ("{%- generation %}", "{%- endgeneration %}") if generation_tags else ("", "")
        return self.source.replace("GEN", gen).replace("END", end)

    def untrained(self) -> Tokenizer:
        """The pipeline without a vocabulary."""
        tokenizer = Tokenizer(models.BPE(ignore_merges=self.source is LLAMA3))
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        if self.source is CHATML:
            digits = pre_tokenizers.Digits(individual_digits=True)
            byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
        else:
            pattern = Regex(LLAMA3_SPLIT if self.source is LLAMA3 else QWEN2_SPLIT)
            split = pre_tokenizers.Split(pattern, behavior="isolated")
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        if self.source is QWEN:
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer

    def finish(self, tokenizer: Tokenizer) -> None:
        """The post-processor, which may need the ids of special tokens."""
        if self.source is LLAMA3:
            template = processors.TemplateProcessing(
                single=f"{self.bos} $A",
                pair=f"{self.bos} $A {self.bos}:1 $B:1",
                special_tokens=[(self.bos, tokenizer.token_to_id(self.bos))],
            )
            byte_level = processors.ByteLevel(trim_offsets=True)
            tokenizer.post_processor = processors.Sequence([byte_level, template])
        elif self.source is QWEN:
            tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)


CHATML_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA3_SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)

FAMILIES = (
    Family(
        "chatml",
        CHATML,
        CHATML_SPECIAL,
        special_first=True,
        bos="<|im_start|>",
        eos="<|im_end|>",
        pad="<|im_end|>",
    ),
    Family(
        "chatml-generation",
        CHATML,
        CHATML_SPECIAL,
        special_first=True,
        bos="<|im_start|>",
        eos="<|im_end|>",
        pad="<|im_end|>",
        ships_generation_tags=True,
    ),
    Family(
        "llama3",
        LLAMA3,
        LLAMA3_SPECIAL,
        special_first=False,
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        pad="<|end_of_text|>",
    ),
    Family(
        "qwen",
        QWEN,
        CHATML_SPECIAL,
        special_first=False,
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
    ),
)
