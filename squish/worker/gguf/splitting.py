"""How the byte-level tokenizers of GGUF split text before they merge: a table by `tokenizer.ggml.pre`.

A wrong split gives wrong tokens without any error, so a name outside the table is refused by whoever asks.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers

_ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_ASCII = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
_MARKED = rf"{_ASCII}|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _words(digits: str, letters: str = r"\p{L}", rest: str = r" ?[^\s\p{L}\p{N}]+[\r\n]*") -> str:
    """Contractions, letters with one leading mark, digits, marks, line ends, spaces."""
    return rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?{letters}+|{digits}|{rest}|{_SPACES}"


def _cased(digits: str, endings: str, upper: str = _UPPER, lower: str = _LOWER, tail: str = "/") -> str:
    """Words that begin with capitals, or end with them."""
    lead = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{lead}{upper}*{lower}+{endings}|{lead}{upper}+{lower}*{endings}|"
        rf"{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n{tail}]*|{_SPACES}"
    )


@dataclass(frozen=True, slots=True)
class Splitting:
    """Patterns that split text one after the other, and what such a tokenizer does when the file does not say.

    compose: NFC before anything else. ignore_merges: a piece that is a token is taken whole.
    """

    patterns: tuple[str, ...]
    add_bos: bool = False
    ignore_merges: bool = False
    compose: bool = False

    def build(self) -> pre_tokenizers.PreTokenizer:
        if self.patterns == (_GPT2,):
            return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        steps: list[pre_tokenizers.PreTokenizer] = []
        for pattern in self.patterns:
            steps.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        return pre_tokenizers.Sequence(steps)


_HAN = r"\p{Han}"
_THREE = r"\p{N}{1,3}"
_KANJI = "[一-龥぀-ゟ゠-ヿ]+"
_LLAMA3 = Splitting((_words(_THREE),), add_bos=True, ignore_merges=True)
_PLAIN, _DIGITS = Splitting((_GPT2,)), Splitting((r"\p{N}", _GPT2))
_THREE_DIGITS, _ONE_DIGIT = Splitting((_words(_THREE),)), Splitting((_words(r"\p{N}"),))
_QWEN2 = Splitting((_words(r"\p{N}"),), compose=True)
_DEEPSEEK3 = Splitting((_THREE, _KANJI, _MARKED))
_GPT4O = Splitting((_cased(_THREE, f"{_ENDINGS}?"),))
_BAILING = Splitting((
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
))  # fmt: skip
# Some of these are other characters once they are composed, so they are written as numbers.
_LATIN = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝ"
    "\u1f5f-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳ"
    "Ꙁ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_EAST = "[一-龥ࠀ-一가-퟿]+"
_HANLESS = f"{_UPPER[:-1]}&&[^{_HAN}]]", f"{_LOWER[:-1]}&&[^{_HAN}]]"
_BLOOM = " ?[^(\\s|.,!?…。，、।۔،)]+"

SPLITTINGS: dict[str, Splitting] = {
    **dict.fromkeys(
        ("gpt-2", "phi-2", "olmo", "mpt", "jais", "trillion", "granite-docling", "exaone4", "a.x-4.0", "mellum",
         "gigachat", "modern-bert"), _PLAIN,
    ),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"), _DIGITS,
    ),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), _LLAMA3,
    ),
    **dict.fromkeys(("glm4", "chatglm-bpe", "dbrx", "smaug-bpe"), _THREE_DIGITS),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez", "kormo", "f2llmv2"), _QWEN2),
    **dict.fromkeys(("stablelm2", "hunyuan", "solar-open", "grok-2"), _ONE_DIGIT),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm"), _DEEPSEEK3),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "minimax-m2"), _GPT4O),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), _BAILING),
    **dict.fromkeys(("bloom", "poro-chat", "gpt3-finnish"), Splitting((_BLOOM,))),
    "viking": Splitting((_BLOOM, r"\p{N}")),
    "qwen35": Splitting(
        (_words(r"\p{N}", r"[\p{L}\p{M}]", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),), compose=True
    ),
    "tekken": Splitting((_cased(r"\p{N}", ""),), add_bos=True, ignore_merges=True),
    "tiny_aya": Splitting((r"\d{1,3}(?=(?:\d{3})*\b)", _cased(_THREE, f"{_ENDINGS}?"))),
    "kimi-k2": Splitting((f"{_HAN}+|" + _cased(_THREE, f"{_ENDINGS}?", *_HANLESS, tail=""),)),
    "deepseek-llm": Splitting(
        ("[\r\n]", rf"\s?[{_LATIN}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", _EAST, r"\p{N}+")
    ),
    "deepseek-coder": Splitting(("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _EAST, r"\p{N}")),
    "falcon": Splitting((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    "seed-coder": Splitting((_words(r"\p{N}", rest=r" ?[^\s\p{L}\p{N}\r\n]+"),)),
    "superbpe": Splitting((r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
    "minicpm5": Splitting((_THREE, _words(r"\p{N}+")), ignore_merges=True),
    "exaone-moe": Splitting(
        (rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",)
    ),
    "youtu": Splitting(
        ("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+", _cased(r"\p{N}", f"{_ENDINGS}?")),
        ignore_merges=True,
    ),
    "afmoe": Splitting(
        (r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
         "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+", _MARKED)
    ),
}  # fmt: skip
