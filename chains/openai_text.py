"""Text that a server reads as text. Servers read control tokens wherever they stand, also in what somebody wrote.

The engine in this process needs none of this: there nothing but the template's own parts can become a control token.
"""

import re

_CONTROL = re.compile(
    r"<(?=\|[^\s<>|]{1,64}\|>"  # Phi-3, Llama 3, Qwen, GPT: <|end|>, <|im_start|>, <|eot_id|>
    r"|/?(?:s|unk|pad|bos|eos|mask|start_of_turn|end_of_turn|think|tool_call|tool_response)>"  # Llama 2, Gemma, Qwen
    r"|</?SYS>>)"  # Llama 2
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS)\])",  # Mistral
    re.IGNORECASE,
)


def harmless(text: str) -> str:
    """The text with a blank in whatever looks like a control token: `<|end|>` becomes `< |end|>`."""
    return _CONTROL.sub(lambda match: match[0] + " ", text)
