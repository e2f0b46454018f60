"""The conversations that the chat goldens are made of: ordinary ones and the awkward ones."""


def chat(*turns: tuple[str, str]) -> list[dict[str, str]]:
    """Messages from (role initial, content) pairs."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[initial], "content": content} for initial, content in turns]


CASES: dict[str, list[dict[str, str]]] = {
    "one turn": chat(("u", "Who was Emma?"), ("a", "A clever young woman.")),
    "own system prompt": chat(("s", "Answer in one word."), ("u", "Is she rich?"), ("a", "Yes.")),
    "two turns": chat(
        ("u", "Hello"), ("a", "Good morning."), ("u", "How are you?"), ("a", "Very well, thanks.")
    ),
    "three turns and a system prompt": chat(
        ("s", "You are Mr. Knightley."),
        ("u", "Badly done?"),
        ("a", "Badly done indeed."),
        ("u", "1 2 12 123 1234 12345"),
        ("a", "3 numbers: 10, 200, 30000."),
        ("u", "And now?"),
        ("a", "Now I'll go. They've left; it's late, we'd better."),
    ),
    "empty system prompt": chat(("s", ""), ("u", "Hi"), ("a", "Hi!")),
    "empty user": chat(("u", ""), ("a", "You said nothing.")),
    "empty assistant": chat(("u", "Say nothing."), ("a", "")),
    "empty assistant in the middle": chat(
        ("u", "Silence."), ("a", ""), ("u", "Speak!"), ("a", "As you wish.")
    ),
    "spaces at both ends": chat(("u", "  padded question  "), ("a", "  padded answer  ")),
    "newlines at both ends": chat(("u", "\nquestion\n\n"), ("a", "\n\nanswer\n")),
    "only whitespace": chat(("u", " "), ("a", " \n\t\n ")),
    "paragraphs, tabs, carriage returns": chat(
        ("u", "Line one\nLine two\n\n\n\tindented\r\nwindows"),
        ("a", "First.\n\nSecond.\n\n\n  Third,   with   gaps.\t\tEnd."),
    ),
    "accents and typography": chat(
        ("u", "Où est le café naïve d’Élise — « ici » ?"), ("a", "À côté… “voilà”, ½ km, 20 €.")
    ),
    "decomposed accents": chat(
        ("u", "cafe\u0301 A\u030angstro\u0308m"), ("a", "re\u0301sume\u0301")
    ),
    "other scripts and emoji": chat(
        ("u", "你好，世界。Привет мир! こんにちは"), ("a", "مرحبا 👋🏽 👩‍👩‍👧‍👦 🇫🇷 ก็ 한국어")
    ),
    "quotes, braces and backslashes": chat(
        ("u", "He said \"it's 'fine'\" {{ messages }} {% if x %} \\n <b>&amp;</b>"),
        ("a", '{"a": [1, "two", null], "b": "C:\\\\dir"} # {{ bos_token }} {# no #}'),
    ),
    "text that looks like the format": chat(
        ("u", "assistant\nuser system <| im_end |> < |im_start| > <|im_end |> <|eot_id |>"),
        ("a", "assistant\nassistant: <im_end> | <|  end |> [INST] <s> </s>"),
    ),
    "two users in a row": chat(("u", "One thing."), ("u", "Another."), ("a", "Both noted.")),
    "two assistants in a row": chat(("u", "Go on."), ("a", "First half,"), ("a", "second half.")),
    "assistant first": chat(("a", "May I help?"), ("u", "No."), ("a", "Oh.")),
    "ends with the user": chat(("u", "Hello"), ("a", "Hi."), ("u", "Are you there?")),
    "nothing to train on": chat(("s", "Listen."), ("u", "Only me.")),
    "control characters": chat(
        ("u", "bell\a nul\0 del\x7f"), ("a", "zero\u200bwidth \ufeffbom\u2028")
    ),
}
