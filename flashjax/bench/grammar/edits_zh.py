# ruff: noqa: RUF001 (Chinese punctuation)
"""Edits of text whose instructions are in Chinese, easy and difficult ones."""

from flashjax.bench.grammar import text as words
from flashjax.bench.grammar.draft import COLOURS_ZH, Draft

_PICTURES = ("一轮圆月", "三只飞鸟", "一枝梅花", "一艘小船", "层叠的远山", "一只打盹的猫", "两把交叉的雨伞", "一座拱桥")
_KEPT = "其余文字和画面保持不变，不留修改痕迹。"


def _address(d: Draft) -> str:
    return f"{d.one(words.ZH_NAMES)}路{d.rng.randint(2, 188)}号"


def _title(d: Draft, other: str = "") -> str:
    return d.one([n for n in words.ZH_NAMES if n not in other]) + d.one([e for e in words.ZH_EVENTS if e not in other])


def _source(d: Draft, title: str, lines: str, picture: str) -> str:
    surface, font, colour = d.one(words.ZH_SURFACES), d.one(words.ZH_FONTS), d.one(COLOURS_ZH)
    head = f"上方是大标题“{title}”，用{font}"
    return f"一张海报的照片，海报{surface}：{head}；{lines}；背景为{colour}，中间画着{picture}。"


def reword_zh(d: Draft) -> str:
    title, slogan, address, picture = _title(d), d.one(words.ZH_SLOGANS), _address(d), d.one(_PICTURES)
    kind, kept = d.rng.randrange(4), [f"竖排小字“{slogan}”没有变化。", f"地址“{address}”没有变化。"]
    if kind == 0:
        new = d.render(_title(d, title), "大标题", "zh")
        d.say(f"把大标题“{title}”改成{new}，字体、颜色和位置都不变。", "大标题的字体、颜色和位置不变。")
    elif kind == 1:
        new = d.render(d.one([s for s in words.ZH_SLOGANS if s != slogan]), "大标题下面的新一行", "zh")
        d.say(f"在大标题下面加一行{new}，字高为标题的一半。", "新一行的字高约为标题的一半。", f"大标题仍是“{title}”。")
    elif kind == 2:
        colour, kept = d.one(COLOURS_ZH), kept[1:]
        new = d.render(_title(d, title), "大标题", "zh")
        d.say(f"删去竖排小字“{slogan}”，并把大标题改成{colour}的{new}。", f"大标题是{colour}的。",
            f"“{slogan}”已经消失。")
    else:
        kept = kept[:1]
        new = d.render(_address(d), "底部的地址", "zh")
        d.say(f"把底部的地址“{address}”换成{new}，仍然居中。", "地址居中。", f"大标题仍是“{title}”。")
    d.changes(*([title], [title], [title, slogan], [address])[kind])
    d.say(_KEPT, *kept, f"画面中仍有{picture}。")
    return _source(d, title, f"右侧竖排小字“{slogan}”；底部写着地址“{address}”", picture)


def reword_long_zh(d: Draft) -> str:
    title, (slogan, other), address = _title(d), d.some(words.ZH_SLOGANS, 2), _address(d)
    picture, drawn = d.some(_PICTURES, 2)
    dates = [f"{month}月{d.rng.randint(2, 28)}日 {d.rng.randint(9, 20)}:30" for month in d.some(range(3, 12), 2)]
    colour, price = d.one(COLOURS_ZH), f"门票 {d.rng.randint(2, 9) * 10} 元"
    d.say(f"请为下一届活动更新这张海报。大标题“{title}”改成{d.render(_title(d, title), '大标题', 'zh')}，"
        f"字体和大小不变，颜色换成{colour}。", f"大标题是{colour}的，字体和大小不变。")
    d.say(f"把标题下面的日期“{dates[0]}”换成{d.render(dates[1], '标题下面的日期', 'zh')}。", f"“{dates[0]}”已经消失。")
    d.say(f"右侧的竖排小字“{slogan}”删去，在左侧对称的位置竖排写上{d.render(other, '左侧竖排的小字', 'zh')}。",
        f"“{slogan}”已经消失。", "新的小字竖排在左侧。")
    if d.rng.random() < 0.5:
        sticker = d.render(d.one(("名额已满", "今日开售", "改期", "免费")), "圆形贴纸", "zh")
        d.say(f"在右下角加一个略微倾斜的{d.one(COLOURS_ZH)}圆形贴纸，上面写着{sticker}。",
            "右下角有一个略微倾斜的圆形贴纸。")
    else:
        d.say(f"把中间画的{picture}换成{drawn}，画法不变。", f"画面中间是{drawn}。", f"{picture}已经消失。")
    d.say(f"底部的地址“{address}”和“{price}”不要改动；新文字要顺着纸面的起伏和光线，不留涂改痕迹。",
          f"地址“{address}”没有变化。", f"“{price}”没有变化。", "没有涂改痕迹。")  # fmt: skip
    return _source(d, title, f"下面是日期“{dates[0]}”；右侧竖排小字“{slogan}”；底部写着地址“{address}”和“{price}”",
        picture)
