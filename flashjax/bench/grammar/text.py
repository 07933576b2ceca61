# ruff: noqa: RUF001 (Chinese punctuation)
"""Text-centric prompts: posters, menus, tables, timetables, mind maps and more, in English and in Chinese."""

from flashjax.bench.grammar.draft import COLOURS, COLOURS_ZH, Draft

NAMES = (
    "Marlow",
    "Okafor",
    "Lindqvist",
    "Tanaka",
    "Bellini",
    "Haddad",
    "Novak",
    "Pereira",
    "Quispe",
    "Whitby",
    "Iyer",
    "Castellan",
)
PLACES = (
    "Harbour",
    "Foundry",
    "Orchard",
    "Signal",
    "Lantern",
    "Granary",
    "Meridian",
    "Copper",
    "Juniper",
    "Tidewater",
    "Falcon",
    "Cobble",
)
EVENTS = (
    "Book Fair",
    "Jazz Night",
    "Seed Swap",
    "Chess Open",
    "Kite Festival",
    "Repair Cafe",
    "Film Week",
    "Clay Workshop",
    "Night Run",
)
MONTHS = ("March", "April", "May", "June", "September", "October", "November")
DISHES = (
    "Leek tart", "Smoked trout", "Barley risotto", "Plum dumplings", "Roast celeriac", "Lentil soup", "Duck ragout",
    "Fennel salad", "Cheese board",
    "Walnut cake", "Rhubarb fool", "Pumpkin gnocchi", "Saffron mussels", "Beet carpaccio",
)  # fmt: skip
TOPICS = {
    "Sleep": ("Light", "Caffeine", "Routine", "Noise", "Temperature", "Naps"),
    "Volcanoes": ("Magma", "Vents", "Ash", "Lava types", "Monitoring", "Calderas"),
    "Bicycles": ("Frame", "Gears", "Brakes", "Wheels", "Lights", "Saddle"),
    "Rivers": ("Source", "Meanders", "Deltas", "Floods", "Dams", "Fish"),
    "Budget": ("Rent", "Food", "Travel", "Savings", "Repairs", "Gifts"),
    "Bread": ("Flour", "Water", "Yeast", "Salt", "Kneading", "Baking"),
    "Tides": ("Moon", "Sun", "Spring tide", "Neap tide", "Currents", "Harbours"),
    "Typefaces": ("Serif", "Sans", "Weight", "Kerning", "Ligatures", "Leading"),
}  # fmt: skip
TOWNS = (
    "Ashford",
    "Brindle",
    "Calder",
    "Dunmore",
    "Eastwick",
    "Fernley",
    "Glenrock",
    "Holm",
    "Ivybridge",
    "Kestrel Bay",
)
SLOGANS = (
    "Small steps, long roads", "Nothing wasted", "Made by hand since 1931", "Listen before you speak",
    "Everything in its season", "Slow is smooth",
    "Bring a friend, leave with three", "Measure twice", "The sea gives back", "Ask the gardener",
)  # fmt: skip
SURFACES = (
    "printed on cream paper and pinned to cork", "behind the glass of a bus shelter", "painted on a brick wall",
    "on the screen of an upright tablet",
    "lying on an oak table beside a pencil", "held by two hands at the lower corners", "on an easel on a pavement",
    "stuck to a fridge with two magnets",
)  # fmt: skip
FONTS = (
    "bold condensed capitals",
    "a high-contrast serif",
    "a rounded sans-serif",
    "even brush lettering",
    "typewriter letters",
    "thin geometric capitals",
)
ZH_SURFACES = (
    "贴在软木板上",
    "立在店门口的画架上",
    "印在米色宣纸上",
    "显示在竖放的平板屏幕上",
    "画在砖墙上",
    "放在木桌上，旁边有一支铅笔",
)
ZH_FONTS = ("粗黑体", "端正的楷书", "清瘦的宋体", "圆体", "隶书")
ZH_NAMES = ("听雨", "归林", "拾光", "半山", "青石", "望潮", "云间", "南巷", "松风", "白露")
ZH_SHOPS = ("书店", "茶馆", "面馆", "花坊", "照相馆", "修表铺", "豆腐坊", "陶艺工坊")
ZH_INNS = ("茶馆", "面馆", "小馆", "饭铺", "食堂")
ZH_DISHES = (
    "葱油拌面",
    "桂花糯米藕",
    "番茄牛腩",
    "清炒豆苗",
    "冬瓜排骨汤",
    "红豆沙",
    "香菇滑鸡",
    "凉拌木耳",
    "酒酿圆子",
    "椒盐豆腐",
)
ZH_EVENTS = ("旧书市集", "秋日音乐会", "风筝节", "象棋公开赛", "社区义诊", "露天电影", "亲子陶艺课", "环湖夜跑")
ZH_SLOGANS = (
    "慢慢来，比较快",
    "一粥一饭，当思来处",
    "读万卷书，行万里路",
    "轻声细语，步步留心",
    "四时有序，万物生长",
    "物尽其用",
)
ZH_TOPICS = {
    "睡眠": ("光线", "作息", "噪音", "温度", "咖啡因"), "河流": ("源头", "支流", "三角洲", "汛期", "水坝"),
    "自行车": ("车架", "变速", "刹车", "轮组", "车灯"), "茶": ("产地", "采摘", "杀青", "水温", "器具"),
    "节气": ("立春", "清明", "芒种", "白露", "冬至"), "面包": ("面粉", "酵母", "揉面", "醒发", "烘烤"),
}  # fmt: skip


def poster(d: Draft) -> None:
    event, place, name = d.one(EVENTS), d.one(PLACES), d.one(NAMES)
    date = f"{d.rng.randint(2, 28)} {d.one(MONTHS)}, {d.rng.randint(9, 20)}:{d.one(('00', '15', '30', '45'))}"
    d.say(f"The poster's title, across the top, is {d.render(f'{place} {event}'.upper(), 'the title at the top')}.")
    d.say(f"Below it stands the date {d.render(date, 'the line below the title')}.")
    d.say(f"A smaller line says {d.render(f'with {name} & Friends', 'the smaller line')}.")
    d.say(f"Along the bottom edge runs {d.render(d.one(SLOGANS), 'the line at the bottom edge')}.")
    shape, colour = (
        d.one(("a large circle", "three overlapping triangles", "a single wavy band", "a grid of dots")),
        d.one(COLOURS),
    )
    d.say(f"Behind the text there is {shape} in {colour}.", f"Behind the text there is {shape} in {colour}.")


def menu(d: Draft) -> None:
    d.say(f"The heading of the menu is {d.render(f'{d.one(PLACES)} Kitchen', 'the heading')}.")
    count = d.rng.randint(4, 6)
    for i, dish in enumerate(d.some(DISHES, count), 1):
        price = f"{d.rng.randint(4, 24)}.{d.one(('00', '20', '50', '80'))}"
        d.say(f"Line {i} is {d.render(f'{dish} {price}', f'line {i} of the menu')}.")
    d.say(f"There are exactly {count} dishes, prices aligned at the right.", f"There are exactly {count} dishes.",
          "The prices are aligned in a column at the right.")  # fmt: skip


def table(d: Draft) -> None:
    rows, heads = (
        d.some(TOWNS, d.rng.randint(3, 4)),
        d.some(("Rain", "Wind", "Visitors", "Bees", "Trains", "Eggs", "Tons"), 2),
    )
    d.say(
        f"Its column heads are {d.render('Town', 'the first column head')}, "
        f"{d.render(heads[0], 'the second column head')} and {d.render(heads[1], 'the third column head')}."
    )
    for i, town in enumerate(rows, 1):
        cells = f"{town} {d.rng.randint(10, 99)} {d.rng.randint(100, 999)}"
        d.say(f"Row {i}, cell by cell, is {d.render(cells, f'row {i}, cell by cell,')}.")
    d.say(f"Every second row is shaded in {(c := d.one(COLOURS))}.", f"Every second row is shaded in {c}.",
          f"The table has exactly {len(rows)} rows below its head.")  # fmt: skip


def mind_map(d: Draft) -> None:
    topic = d.one(tuple(TOPICS))
    branches, colours = d.some(TOPICS[topic], d.rng.randint(4, 6)), d.some(COLOURS, 6)
    d.say(f"{d.render(topic, 'the centre')} stands in an oval in its centre.")
    for branch, colour in zip(branches, colours, strict=False):
        d.say(f"A {colour} branch ends in {d.render(branch, f'the {colour} branch')}.")
    d.say(f"Exactly {len(branches)} branches leave the centre, none of them crossing another.",
          f"Exactly {len(branches)} branches leave the centre.", "No branches cross.")  # fmt: skip


def timetable(d: Draft) -> None:
    d.say(f"It is a departure board, headed {d.render('DEPARTURES', 'the head of the board')}.")
    hour = d.rng.randint(6, 15)
    for i, town in enumerate(d.some(TOWNS, d.rng.randint(4, 5)), 1):
        line = f"{hour + i:02d}:{d.rng.randint(0, 59):02d} {town} {d.rng.randint(1, 12)}"
        d.say(f"Line {i} shows {d.render(line, f'line {i} of the board')}.")
    d.say(
        "The characters are amber on black, in columns for time, town and platform.",
        "The characters are amber on black.",
    )


def cover(d: Draft) -> None:
    name = f"{d.one(('Ada', 'Bruno', 'Clea', 'Dev', 'Ewa', 'Femi'))} {d.one(NAMES)}"
    title = f"The {d.one(PLACES)} {d.one(('Atlas', 'Letters', 'Winter', 'Question', 'Keeper', 'Equation'))}"
    d.say(f"The title of the book is {d.render(title, 'the title on the cover')}.")
    d.say(f"The author's name at the bottom is {d.render(name, 'the name at the bottom')}.")
    d.say(f"A round sticker says {d.render(f'{d.rng.randint(2, 9)}th printing', 'the round sticker')}.")
    d.say(f"A narrow strip along the left edge, the spine, repeats {d.render(title.upper(), 'the spine')}.")
    colour, thing = (
        d.one(COLOURS),
        d.one(("a key", "a moth", "a folded map", "a lit match", "a spiral stair", "two empty chairs")),
    )
    d.say(
        f"The cover is {colour} cloth with an embossed picture of {thing}.",
        f"The cover is {colour}.",
        f"The cover shows {thing}.",
    )


def package(d: Draft) -> None:
    brand, kind = (
        d.one(NAMES),
        d.one(("Oat Crackers", "Sea Salt", "Black Tea", "Lime Soap", "Candle No. 5", "Tomato Passata")),
    )
    d.say(f"The front of the package carries the brand {d.render(brand.upper(), 'the brand')}.")
    d.say(f"Under it stands {d.render(kind, 'the line under the brand')}.")
    d.say(f"A band says {d.render(d.one(SLOGANS), 'the band')}.")
    d.say(f"In the lower left corner: {d.render(f'NET {d.rng.randint(5, 95) * 10} g', 'the lower left corner')}.")
    d.say(
        f"In the lower right one: {d.render(f'BEST BEFORE {d.rng.randint(1, 12):02d}/2029', 'the lower right corner')}."
    )


def zh_menu(d: Draft) -> None:
    d.say(f"价目表的标题是{d.render(d.one(ZH_NAMES) + d.one(ZH_INNS), '标题', 'zh')}。")
    count = d.rng.randint(4, 6)
    for i, dish in enumerate(d.some(ZH_DISHES, count), 1):
        d.say(f"第{i}行写着{d.render(f'{dish} {d.rng.randint(8, 68)}元', f'第{i}行', 'zh')}。")
    d.say(f"一共{count}道菜，价格在右侧对齐。", f"恰好有{count}道菜。", "价格在右侧对齐成一列。")


def zh_poster(d: Draft) -> None:
    d.say(f"海报上方的大标题是{d.render(d.one(ZH_NAMES) + d.one(ZH_EVENTS), '大标题', 'zh')}。")
    date = f"{d.rng.randint(3, 11)}月{d.rng.randint(2, 28)}日 {d.rng.randint(9, 20)}:30"
    d.say(f"标题下面是日期{d.render(date, '标题下面一行', 'zh')}。")
    d.say(f"右侧竖排一行小字{d.render(d.one(ZH_SLOGANS), '右侧竖排的小字', 'zh')}。")
    place = f"{d.one(ZH_NAMES)}路{d.rng.randint(2, 188)}号"
    d.say(f"底部写着地址{d.render(place, '底部一行', 'zh')}。")
    colour, thing = d.one(COLOURS_ZH), d.one(("一轮圆月", "三只飞鸟", "一枝梅花", "一艘小船", "层叠的远山"))
    d.say(f"背景为{colour}，画着{thing}。", f"背景为{colour}。", f"画面中有{thing}。")


def zh_mind_map(d: Draft) -> None:
    topic = d.one(tuple(ZH_TOPICS))
    branches, colours = d.some(ZH_TOPICS[topic], d.rng.randint(4, 5)), d.some(COLOURS_ZH, 5)
    d.say(f"思维导图的中心是{d.render(topic, '中心', 'zh')}。")
    for branch, colour in zip(branches, colours, strict=False):
        d.say(f"{colour}的分支末端写着{d.render(branch, colour + '的分支', 'zh')}。")
    d.say(f"从中心恰好伸出{len(branches)}条分支，互不交叉。", f"恰好有{len(branches)}条分支。", "分支互不交叉。")


FORMS = (poster, menu, table, mind_map, timetable, cover, package)
ZH_FORMS = (zh_menu, zh_poster, zh_mind_map)


def text(d: Draft) -> str:
    surface, font = d.one(SURFACES), d.one(FONTS)
    form = d.one(FORMS)
    kind = form.__name__.replace("_", " ")
    d.say(f"A {kind}, {surface}, set in {font}.", f"The picture shows a {kind} {surface}.", f"The lettering is {font}.")
    form(d)
    d.say(
        "All words are sharp, level and complete; there is no other text.",
        "There is no text besides what was asked for.",
    )
    return d.prompt()


def text_zh(d: Draft) -> str:
    surface, font = d.one(ZH_SURFACES), d.one(ZH_FONTS)
    d.say(f"画面正中的版面{surface}，文字用{font}。", f"版面{surface}。", f"文字用{font}。")
    d.one(ZH_FORMS)(d)
    d.say("每个字笔画清晰、完整，除此之外没有别的文字。", "除要求的文字外没有别的文字。")
    return d.prompt("zh")
