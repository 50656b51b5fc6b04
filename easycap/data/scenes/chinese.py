"""Captions of scenes in Chinese: measure words, no inflection, no spaces."""

from __future__ import annotations

import re
from collections.abc import Iterator

from easycap.data.scenes.tables import ANIMALS, COLOURS, PEOPLE
from easycap.data.scenes.templates import Grammar, Thing, same

# Kind of thing -> its measure word and its noun.
_NOUNS: dict[str, tuple[str, str]] = {
    "man": ("个", "男人"), "woman": ("个", "女人"), "boy": ("个", "男孩"), "girl": ("个", "女孩"),
    "dog": ("只", "狗"), "cat": ("只", "猫"), "horse": ("匹", "马"), "cow": ("头", "奶牛"),
    "sheep": ("只", "绵羊"), "elephant": ("头", "大象"), "giraffe": ("只", "长颈鹿"), "zebra": ("匹", "斑马"),
    "bird": ("只", "鸟"), "duck": ("只", "鸭子"), "penguin": ("只", "企鹅"), "rabbit": ("只", "兔子"),
    "car": ("辆", "汽车"), "truck": ("辆", "卡车"), "bus": ("辆", "公共汽车"), "bicycle": ("辆", "自行车"),
    "boat": ("艘", "船"), "plane": ("架", "飞机"), "kite": ("只", "风筝"), "balloon": ("个", "气球"),
    "ball": ("个", "球"), "umbrella": ("把", "雨伞"), "chair": ("把", "椅子"), "bench": ("张", "长椅"),
    "sofa": ("张", "沙发"), "table": ("张", "桌子"), "vase": ("个", "花瓶"), "tree": ("棵", "树"),
    "tent": ("顶", "帐篷"), "snowman": ("个", "雪人"),
}  # fmt: skip
_COLOURS = dict(zip(COLOURS, "红橙黄绿蓝紫粉白黑棕灰", strict=True))
_NUMBERS = {1: "一", 2: "两", 3: "三", 4: "四"}
_GROUP = "一群"
_GARMENTS = {"man": "衬衫", "boy": "衬衫", "woman": "裙子", "girl": "裙子"}
_SIZES = {"small": "小", "big": "大"}
# An elephant, "big elephant" by its name, is small or big in other words.
_SIZES_OF_ELEPHANTS = {"small": "矮小的", "big": "高大的"}
_BY_NOUN = {noun: kind for kind, (_, noun) in _NOUNS.items()}


def _either(words: object) -> str:
    return "|".join(sorted(set(words), key=len, reverse=True))  # type: ignore[call-overload]


_MEASURES = _either(measure for measure, _ in _NOUNS.values())
_COLOUR = "[" + "".join(_COLOURS.values()) + "]色"
_SIZE = _either([*_SIZES.values(), *_SIZES_OF_ELEPHANTS.values()])
_THING = re.compile(
    f"(?P<number>{_GROUP}|[{''.join(_NUMBERS.values())}])(?:{_MEASURES})?"
    f"(?:(?:穿着)?(?P<colour>{_COLOUR})(?:衬衫|裙子)?的)?(?P<size>{_SIZE})??(?P<noun>{_either(_BY_NOUN)})"
)


class _Nouns:
    def write(self, thing: Thing, case: str) -> str:
        measure, noun = _NOUNS[thing.kind]
        number = f"{_NUMBERS[thing.number]}{measure}" if thing.number else _GROUP
        colour = f"{_COLOURS[thing.colour]}色" if thing.colour else ""
        if colour:
            colour = f"穿着{colour}{_GARMENTS[thing.kind]}的" if thing.kind in PEOPLE else f"{colour}的"
        sizes = _SIZES_OF_ELEPHANTS if thing.kind == "elephant" else _SIZES
        return f"{number}{colour}{sizes[thing.size] if thing.size else ''}{noun}"

    def pattern(self, case: str) -> str:
        return re.sub(r"\(\?P<\w+>", "(?:", _THING.pattern)

    def read(self, text: str, case: str) -> Iterator[Thing]:
        if (match := _THING.fullmatch(text)) is None:
            return
        number = next((count for count, word in _NUMBERS.items() if word == match["number"]), 0)
        colour = next((name for name, word in _COLOURS.items() if f"{word}色" == match["colour"]), None)
        sizes = {word: size for table in (_SIZES, _SIZES_OF_ELEPHANTS) for size, word in table.items()}
        yield Thing(_BY_NOUN[match["noun"]], number, colour, sizes.get(match["size"]))

    def has_group_word(self, kind: str) -> bool:
        return kind in PEOPLE or kind in ANIMALS


_ACTIONS = {
    "standing": ["站着"], "running": ["奔跑"], "sitting": ["坐着"], "jumping": ["跳跃"], "lying": ["躺着"],
    "grazing": ["吃草"], "flying": ["飞翔"], "swimming": ["游泳"], "floating": ["漂浮"], "parked": ["停着"],
}  # fmt: skip
_SIDES = {
    "beside": ["旁边"], "left of": ["左边"], "right of": ["右边"], "in front of": ["前面"], "behind": ["后面"],
    "on": ["上面"], "under": ["下面"],
}  # fmt: skip

CHINESE = Grammar(
    name="zh",
    templates=(
        "{A}在{place}{act}",
        "{place}有{A}{there}",
        "{place}有{A}",
        "在{place}，{A}{act}",
        "{weather}，{A}在{place}{act}",
        "{weather}，{place}有{A}",
        "{A}在{B}的{side}",
        "{place}有{A}在{B}的{side}{act}",
        "在{place}，{A}在{B}的{side}",
        "{A}在{B}的{near}{act}",
        "{weather}，{A}在{B}的{side}",
        "{A}{verb}{B}",
        "{A}在{place}{verb}{B}",
        "{place}有{A}{verb}{B}",
        "{place}有{A}和{B}",
        "{B}在{A}的{inverse}",
        "{place}有{A}，天空中有{S}{fly_S}",
        "{S}{over}{A}的上空飞翔",
    ),
    nouns=_Nouns(),
    words={
        "place": same({
            "beach": ["海滩上", "沙滩上"], "street": ["街道上", "马路上"], "park": ["公园里"],
            "farm": ["农场里"], "desert": ["沙漠里"], "savanna": ["草原上"], "mountains": ["山区里"],
            "snow": ["雪地上"], "lake": ["湖面上"], "forest": ["森林里", "树林里"], "living room": ["客厅里"],
            "kitchen": ["厨房里"], "soccer field": ["足球场上"],
        }),
        "weather": same({
            "sunny": ["晴天里"], "cloudy": ["阴天里"], "rainy": ["下雨时"], "snowing": ["下雪时"],
            "night": ["夜里"], "sunset": ["日落时"], "rainbow": ["彩虹下"],
        }),
        "act": same(_ACTIONS),
        "there": same({
            action: [word if word.endswith("着") else f"在{word}" for word in words]
            for action, words in _ACTIONS.items()
        }),
        "side": same(_SIDES),
        "near": same({"beside": _SIDES["beside"]}),
        "inverse": same(_SIDES),
        "verb": same({"riding": ["骑着"], "holding": ["拿着"], "flying": ["放着"]}),
        "fly_S": same({"fly": ["在飞翔"]}),
        "over": same({"over": ["在"]}),
    },
    ignored="。，、.,!？?； ",
    stop="。",
)  # fmt: skip
