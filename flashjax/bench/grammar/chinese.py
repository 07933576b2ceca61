# ruff: noqa: RUF001 (Chinese punctuation)
"""Portraits and landscapes in Chinese, each with words to render."""

from flashjax.bench.grammar.draft import COLOURS_ZH, NUMBERS_ZH, Draft

_LENSES = ("半身照片", "低机位的全身照片", "前后景都清晰的环境人像", "方形中画幅照片", "背景虚化的近景照片")
_PEOPLE = (
    ("一位老奶奶", "她"), ("一位老爷爷", "他"), ("一位年轻女子", "她"), ("一位年轻男子", "他"), ("一位中年妇女", "她"),
    ("一位中年男子", "他"), ("一个八岁左右的女孩", "她"), ("一个十岁左右的男孩", "他"),
)  # fmt: skip
_PLACES = (
    "站在修表铺的柜台后面", "坐在面馆门口的长凳上", "站在旧书摊前", "坐在渡轮上层甲板的长椅上", "站在花坊的雨棚下",
    "站在乡村车站的站台上", "坐在茶馆的窗边", "站在学校走廊的储物柜前", "坐在陶艺工坊的转盘前", "站在夜市的糖画摊旁",
)  # fmt: skip
_HAIR = ("一头短卷发", "及肩的直发", "一条搭在肩上的长辫子", "剪得很短的头发", "齐刘海短发", "扎得很高的马尾")
_MARKS = ("鼻梁上有几颗雀斑", "左眉上有一道小疤", "戴着圆框眼镜", "脸颊上沾着一点面粉", "下巴上贴着创可贴",
    "右耳戴着一枚银耳钉")
_TOPS = ("{}的高领毛衣", "{}的木扣雨衣", "{}的亚麻衬衫", "{}的棉背心", "{}的背带裤", "{}的对襟布衫")
_EXTRAS = ("围着{}的围巾", "戴着{}的贝雷帽", "背着{}的双肩包", "系着{}的腰带", "戴着{}的露指手套", "系着{}的围裙")
_HANDS = (
    "双手捧着一只有裂纹的蓝茶杯", "正在穿针，拇指和食指捏在一起", "伸出右手的四根手指", "正在折一只纸鹤",
    "用左手托着下巴", "右手掌上托着三只摞起来的碟子", "把放大镜举在左眼前", "腋下夹着一只母鸡", "正在给红靴子系鞋带",
)  # fmt: skip
_FACES = ("闭着眼睛大笑", "直视镜头，没有笑容", "扬起眉毛，抿着嘴", "带着淡淡的、疲倦的微笑", "嘴半张着，正在说话")
_SIGNS = ("头顶上方的木牌", "身后墙上的搪瓷牌", "橱窗里的霓虹灯", "膝边的小黑板", "胸前的名牌", "右下角的纸板",
    "背景里的红色横幅")
_WORDS = (
    "营业至天明", "修表配钥匙", "今日特价：梨汤", "请勿喧哗", "末班渡轮 23:15", "桂花巷 42 号", "小心台阶", "旧书新价",
    "现金付款", "新茶上市", "午休勿扰", "欢迎光临", "送货上门", "第三站台", "开水自取",
)  # fmt: skip
_LIGHTS = (
    "左侧的柔光照着脸，右半边脸在阴影里", "一只灯泡从上方照亮脸部", "逆光在头发周围勾出一道亮边",
    "光线柔和，没有生硬的影子", "红色的灯光映在一侧脸颊上", "暖色的灯光和冷色的天光在脸上交汇",
)  # fmt: skip
_VIEWS = ("一幅水墨画", "一张前后都清晰的广角照片", "一幅细致的水粉画", "一幅套色木版画", "一张平视的照片")
_LANDS = (
    "群峰之间的江湾", "云雾中的梯田", "长满芦苇的湖岸", "山腰上的寺院", "水乡的石桥边", "戈壁上的烽火台下",
    "竹林里的溪谷", "海边的渔村", "茶山脚下的村口", "黄土高原的沟壑",
)  # fmt: skip
_SEASONS = ("初春", "盛夏", "深秋", "隆冬")
_TIMES = (
    ("清晨，阳光从左侧低低地照过来", "低低的阳光来自左侧。"), ("正午，影子很短", "影子很短。"), ("傍晚，天边一片橙红",
        "天边是橙红色。"),
    ("夜里，一轮满月挂在右上方", "满月挂在右上方。"), ("阴天，光线均匀", "光线均匀，没有明显的影子。"),
)  # fmt: skip
_COUNTED = (("只", "乌篷船"), ("座", "石灯笼"), ("个", "稻草人"), ("辆", "没有人骑的自行车"), ("块", "立石"), ("顶",
    "白帐篷"), ("垛", "圆草垛"), ("口", "水缸"))
_ARRANGED = ("排成一行", "围成半圆", "散落各处")
_HOUSES = ("一座有{}屋檐的凉亭", "一间有{}窗框的小屋", "一座挂着{}旗子的木桥", "一座有{}大门的祠堂", "一座{}的瞭望塔")
_FAR = ("一座积雪的孤峰", "一列从左向右行驶的绿皮火车", "一道分成两级的瀑布", "三重由深到浅的山影", "一排风力发电机",
    "一缕笔直的炊烟")
_ANIMALS = (("只白鹭", "站在浅草中"), ("头水牛", "低头吃草"), ("只乌鸦", "停在枯枝上"), ("只山羊", "站在岩石上"),
    ("只大雁", "排成一行飞过"), ("只黑狗", "趴在路边"))
_STONES = ("路边的石碑", "岔路口的木牌", "村口牌坊正中", "岩壁上的石刻", "近处的一面旗帜")
_NAMES = ("望潮渡", "听雨亭", "白露村", "归林书院", "松风岭", "半山茶场", "青石桥", "云间寺", "南巷口", "拾光渡口",
    "前方急弯", "游人止步", "禁止垂钓", "山高水长", "江山如画", "距县城 12 公里")  # fmt: skip


def portrait_zh(d: Draft) -> str:
    """Seven sentences, ten or eleven facts, always with a sign."""
    (person, they), lens, place = d.one(_PEOPLE), d.one(_LENSES), d.one(_PLACES)
    d.say(f"一张{lens}：{person}{place}。", f"这是一张{lens}。", f"人物是{person}。", f"人物{place}。")
    hair, mark = d.one(_HAIR), d.one(_MARKS)
    d.say(f"{they}留着{hair}，{mark}。", f"人物留着{hair}。", f"人物{mark}。")
    colours = d.some(COLOURS_ZH, 2)
    top, extra = d.one(_TOPS).format(colours[0]), d.one(_EXTRAS).format(colours[1])
    d.say(f"{they}穿着{top}，{extra}。", f"人物穿着{top}。", f"人物{extra}。")
    hands, face = d.one(_HANDS), d.one(_FACES)
    d.say(f"{they}{hands}，{face}。", f"人物{hands}。", f"人物{face}。", "看得见的手都有五根手指，形状正确。")
    sign = d.one(_SIGNS)
    d.say(f"{sign}上写着{d.render(d.one(_WORDS), sign, 'zh')}，除此之外没有可读的文字。")
    light = d.one(_LIGHTS)
    d.say(f"{light}。", f"{light}。")
    return d.prompt("zh")


def landscape_zh(d: Draft) -> str:
    """Seven sentences, ten to twelve facts, always with words to read."""
    view, place, season, (time, fact) = d.one(_VIEWS), d.one(_LANDS), d.one(_SEASONS), d.one(_TIMES)
    d.say(f"{view}：{season}，{place}。",
          f"这是{view}。", f"场景是{place}。", f"季节是{season}。")  # fmt: skip
    d.say(f"{time}。", fact)
    (unit, thing), count, arranged = d.one(_COUNTED), d.rng.randint(3, 6), d.one(_ARRANGED)
    d.say(f"近景里有{NUMBERS_ZH[count]}{unit}{thing}，{arranged}。", f"近景里恰好有{NUMBERS_ZH[count]}{unit}{thing}。",
        f"{thing}{arranged}。")
    first, second = d.one(("左右", "右左"))
    here, there = (h.format(c) for h, c in zip(d.some(_HOUSES, 2), d.some(COLOURS_ZH, 2), strict=True))
    d.say(f"{first}边有{here}；{second}边稍远处有{there}。", f"{first}边有{here}。", f"{second}边稍远处有{there}。")
    far, (animal, doing), many = d.one(_FAR), d.one(_ANIMALS), d.rng.randint(2, 5)
    d.say(f"远处是{far}。", f"远处是{far}。")
    d.say(f"{NUMBERS_ZH[many]}{animal}{doing}。", f"恰好有{NUMBERS_ZH[many]}{animal}，{doing}。")
    stone = d.one(_STONES)
    absent = d.one(("人", "汽车", "电线"))
    d.say(f"{stone}写着{d.render(d.one(_NAMES), stone, 'zh')}，字迹清楚；画面中没有{absent}。", f"画面中没有{absent}。")
    return d.prompt("zh")
