"""Whether a message is in another language than English, told offline by its letters. Knows no page and no model."""

import re
from functools import cache
from typing import Any

LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "nl": "Dutch", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian",
    "sv": "Swedish", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese",
    "zh": "Chinese",
}  # fmt: skip
"""What a message may be taken for. The library knows 140; the rare ones take probability from their big neighbours."""
SURE = 0.7
"""Probability from which a message counts as foreign. Of 11,370 English messages (the development turns, the adapters'
training questions, the routes) none reaches it, and of 59 short questions in 26 languages 58 do. Chosen on these."""
_MOST = 2000
"""Characters that are looked at: more tell nothing more."""
_NOT_PROSE = re.compile(r"```.*?(?:```|$)|`[^`\n]*`|https?://\S+|\S+@\S+|[{}<>=;|\\$#]+|\w*[\d_./]\w*", re.DOTALL)
"""Code, addresses, numbers and names of files: they have no language."""


def foreign_language(message: str) -> str | None:
    """The name of the language of a message that is clearly not English; None for every other."""
    text = _NOT_PROSE.sub(" ", message[:_MOST])
    if sum(letter.isalpha() for letter in text) < 2:
        return None
    code, probability = _identifier().classify(text)
    return LANGUAGES[code] if code != "en" and probability >= SURE else None


def notice(language: str) -> str:
    """What is told beside the answer to a message in that language, by a desk whose models know English alone."""
    return (
        f"Your message looks {language}. The models of this desk know English alone: what is found and answered may be "
        "beside the point. Please ask in English."
    )


@cache
def _identifier() -> Any:
    """py3langid's own model, a file of 4.5 MB beside its code; loading takes half a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(LANGUAGES))
    return identifier
