# ruff: noqa: RUF001 (Chinese punctuation)
"""Long text-centric prompts in Chinese: programmes, mind maps with leaves, timetables, notice boards, price lists."""

from flashjax.bench.grammar.draft import COLOURS_ZH, NUMBERS_ZH, Draft, listed
from flashjax.bench.grammar.text import ZH_FONTS, ZH_INNS, ZH_NAMES, ZH_SHOPS, ZH_SLOGANS, ZH_SURFACES

_EVENTS = {
    "旧书市集": (("开门迎客", "旧书估价", "作者签名", "儿童换书角", "线装书修补课", "诗歌朗诵", "珍本拍卖", "清点收摊"),
    ("一本翻开的书，书页间飞出五只鸟", "一摞歪斜的书，共七本")),
    "风筝节": (("风力测试", "扎风筝入门", "沙燕风筝展", "团体放飞", "最长尾巴比赛", "撒糖果", "夜光风筝", "收线合影"),
    ("四只鲤鱼形状的风筝", "一只燕子风筝，尾巴上系着九个结")),
    "秋日音乐会": (("入场", "童声合唱", "二胡独奏", "笛子与古筝", "中场茶歇", "听众点歌", "大合奏", "返场"),
    ("一把靠在圆月上的二胡", "三支交叉成星形的笛子")),
    "社区露天电影": (("摆椅子", "动画短片", "老电影放映", "与导演聊天", "猜片名游戏", "默片与钢琴", "午夜惊喜",
    "一起收拾"), ("一台放映机，光束里有几只飞蛾", "六把空椅子，其中一把上放着帽子")),
    "象棋公开赛": (("选手签到", "第一轮", "蒙目棋表演", "第二轮", "午餐复盘", "一对多车轮战", "决赛", "颁奖"),
    ("一枚翻倒的红色棋子", "两只隔着棋盘相握的手")),
}  # fmt: skip
_EMBLEMS = ("一只钟", "一片叶子", "一把钥匙", "一只蜗牛", "一个太阳", "一条鱼", "一顶帽子", "一把梳子")
_LAST = ("雨天照常举行", "请自带水杯", "谢绝宠物入场", "请勿倚靠自行车", "最终解释权归主办方", "请保管好随身物品")
_MAPS = {
    "睡眠": {"光线": ("少看屏幕", "遮光窗帘", "晨光"), "饮食": ("午后不喝咖啡", "晚餐少吃", "热牛奶"), "身体": ("泡脚",
    "慢呼吸", "拉伸"), "声音": ("耳塞", "雨声"), "习惯": ("固定时间", "纸质书", "手机放远"), "午睡": ("二十分钟",
    "三点以前"), "梦": ("记梦本", "反复的梦")},
    "搬家": {"箱子": ("书", "厨具", "易碎品"), "证件": ("租房合同", "水电读数", "钥匙"), "人手": ("邻居", "搬家公司",
    "看猫的人"), "旧房": ("补墙", "最后看一眼"), "新房": ("量尺寸", "先装灯", "门牌"), "花费": ("押金", "货车",
    "请客吃饭"), "扔掉": ("旧电线", "单只袜子")},
    "茶": {"种类": ("白茶", "乌龙", "普洱"), "用水": ("山泉", "八十度", "不隔夜"), "器具": ("盖碗", "紫砂壶", "玻璃杯"),
    "产地": ("武夷山", "安溪", "勐海"), "忌讳": ("泡太久", "水太烫"), "时辰": ("清晨", "下午四点"), "茶点": ("瓜子",
    "绿豆糕")},
    "自行车": {"车架": ("钢", "铝", "竹子"), "车轮": ("辐条", "内胎", "轮圈"), "传动": ("链条", "皮带"),
    "刹车": ("碟刹", "夹器"), "灯光": ("花鼓发电", "尾灯", "反光片"), "载物": ("后架", "车筐", "拖车"), "保养": ("上油",
    "打气")},
    "河流": {"源头": ("泉眼", "冰川", "沼泽"), "河道": ("急流", "河湾", "牛轭湖"), "入海": ("三角洲", "滩涂"),
    "生物": ("水獭", "蜉蝣", "柳树"), "用途": ("水磨", "航运", "饮水"), "风险": ("洪水", "干旱", "塑料"),
    "过河": ("浅滩", "渡船", "石桥")},
}  # fmt: skip
_CLOCK = {6: ("一", "三", "五", "七", "九", "十一"), 7: ("一", "两", "四", "六", "八", "十", "十一")}
_LESSONS = ("语文", "数学", "英语", "科学", "音乐", "美术", "体育", "书法", "阅读", "劳动")
_DAYS = ("星期一", "星期二", "星期三", "星期四", "星期五")
_REMARKS = ("记得带笔！", "换课？", "考试", "带雨衣", "去操场", "问李老师")
_SLIPS = (
    ("寻猫启事", ("名叫豆包", "左前爪是白的"), "一只坐着的猫的图画"), ("钢琴课", ("第一节免费", "零基础也可以"),
        "一排印在底边的琴键"),
    ("单间出租", ("顶楼，十四平米", "安静，合用厨房"), "一张手绘的平面图"), ("合唱团招新", ("每周一晚七点半",
        "不用面试"), "三个音符"),
    ("转让自行车", ("蓝色，三挡变速", "几乎没骑过"), "一张贴上去的自行车照片"), ("拾到手套一只", ("左手，红毛线",
        "周日在电车上"), "一只手的轮廓"),
    ("瑜伽入门", ("请自带毯子", "旧消防站二楼"), "六条可以撕下的小条，其中两条已被撕走"), ("赠送旧书",
        ("推理小说四十本", "周五前来取"), "一个折起的角"),
)  # fmt: skip
_PLACES = ("左上方", "中上方", "右上方", "左下方", "中下方", "右下方")
_SECTIONS = {
    "面点": ("葱油拌面", "鲜肉小笼", "韭菜盒子", "豆沙包", "阳春面"), "热菜": ("番茄牛腩", "清炒豆苗", "香菇滑鸡",
    "椒盐豆腐", "红烧茄子"),
    "汤羹": ("冬瓜排骨汤", "酸辣汤", "银耳羹", "紫菜蛋花汤"), "饮品": ("桂花酸梅汤", "豆浆", "菊花茶", "热可可"),
    "凉菜": ("凉拌木耳", "拍黄瓜", "糯米藕", "皮蛋豆腐"),
}  # fmt: skip


def _all(texts, d: Draft) -> str:
    return "".join(d.quote(*texts, language="zh"))


def zh_programme(d: Draft) -> None:
    event = d.one(tuple(_EVENTS))
    items, pictures = _EVENTS[event]
    d.say(f"最上方的大标题几乎与纸同宽，写着{d.render(d.one(ZH_NAMES) + event, '大标题', 'zh')}。",
        "大标题几乎与纸同宽。")
    date = f"第{d.one('三四五六七八九')}届　{d.rng.randint(3, 11)}月{d.rng.randint(2, 28)}日"
    d.say(f"标题下面一行是{d.render(date, '标题下面一行', 'zh')}，字高约为标题的一半；"
        f"再下面一行小字写着{d.render(d.one(ZH_SLOGANS), '再下面的小字', 'zh')}。")
    picture, colour, side = d.one(pictures), d.one(COLOURS_ZH), d.one("左右")
    d.say(f"海报中央画着{picture}，只用{colour}和黑色平涂，没有阴影。", f"海报中央画着{picture}。",
        f"图案只用了{colour}和黑色。")
    count, hour = d.rng.randint(5, 7), d.rng.randint(8, 12)
    d.say(f"图案下方是节目单，恰好有{NUMBERS_ZH[count]}行，分成两栏：左栏是时间，用粗体；右栏是内容。",
          f"节目单恰好有{NUMBERS_ZH[count]}行。", "时间在左栏，用粗体。")  # fmt: skip
    for i, item in enumerate(items[j] for j in sorted(d.some(range(len(items)), count))):
        line = f"{hour + i}:{d.one(('00', '15', '30', '45'))} {item}"
        where = f"节目单第{'一二三四五六七'[i]}行"
        d.say(f"{where if i == 0 else where[3:]}是{d.render(line, where, 'zh')}。")
    price = f"门票 {d.rng.randint(2, 9) * 10} 元"
    d.say(f"图案的{side}边缘斜贴着一个{d.one(COLOURS_ZH)}的圆形标签，上面写着{d.render(price, '圆形标签', 'zh')}。",
        f"圆形标签斜贴在图案的{side}边缘。")
    count = d.rng.randint(3, 4)
    firms = [d.one(ZH_NAMES[i::count]) + d.one(ZH_SHOPS) for i in range(count)]
    marks = d.some(_EMBLEMS, count)
    told = [f"{m}下面是{d.render(f, f'{m}下面的名称', 'zh')}" for m, f in zip(marks, firms, strict=True)]
    d.say(f"节目单下面有一条细线，细线下面并排列着{NUMBERS_ZH[count]}家赞助单位，每家一个小图标，名称写在图标下面。"
        f"从左到右，{'，'.join(told)}。",
          f"恰好有{NUMBERS_ZH[count]}家赞助单位，图标从左到右是{listed(marks, 'zh')}。")  # fmt: skip
    d.say(f"最底部用全页最小的字写着{d.render(d.one(_LAST), '最底部一行', 'zh')}。")


def zh_branches(d: Draft) -> None:
    topic = d.one(tuple(_MAPS))
    count = d.rng.randint(6, 7)
    branches, colours = d.some(tuple(_MAPS[topic]), count), d.some(COLOURS_ZH, count)
    shape = d.one(("一个六边形", "一朵云", "一个双线圆圈", "一个灯泡轮廓"))
    d.say(f"思维导图的中心是{shape}，里面写着{d.render(topic, '中心', 'zh')}。", f"中心是{shape}。")
    d.say(f"从中心恰好伸出{NUMBERS_ZH[count]}条弧线分支，每条颜色不同，靠近中心处粗，末端细，互不交叉。"
        f"下面按钟面的方向说明它们的位置。",
          f"恰好有{NUMBERS_ZH[count]}条分支。", "分支互不交叉。", "分支靠近中心处较粗。")  # fmt: skip
    for branch, colour, hour in zip(branches, colours, _CLOCK[count], strict=True):
        leaves = _MAPS[topic][branch]
        leaves = d.some(leaves, d.rng.randint(2, len(leaves)))
        label, number = d.render(branch, f"{colour}的分支", "zh"), NUMBERS_ZH[len(leaves)]
        quoted = _all(leaves, d)
        d.say(d.one((
            f"{hour}点钟方向是{colour}的分支，写着{label}，末端分成{number}根细枝，分别写着{quoted}。",
            f"{colour}的分支指向{hour}点钟方向，名称是{label}，它有{number}根细枝：{quoted}。",
        )), f"{colour}的分支恰好有{number}根细枝，写着{quoted}。")  # fmt: skip
    branch = d.one(branches)
    drawn = d.one(("一只小蜗牛", "一个红色问号", "一圈咖啡渍", "一架纸飞机"))
    d.say(f"在“{branch}”旁边画着{drawn}，"
        f"右下角的空白处用小字写着{d.render(d.one(('第三稿', '未完待续', '见第48页', '周二讨论')), '右下角', 'zh')}。",
          f"“{branch}”旁边画着{drawn}。")  # fmt: skip


def zh_timetable(d: Draft) -> None:
    title = f"{d.one('一二三四五六')}年{d.one('一二三四')}班课程表"
    d.say(f"表格上方居中的标题是{d.render(title, '标题', 'zh')}。")
    count, colour = d.rng.randint(5, 6), d.one(("藏青", "墨绿", "深灰", "朱红"))
    heads = _all(("节次", *_DAYS), d)
    d.say(f"表格有六列，表头从左到右是{heads}，白字，底色为{colour}。", f"表头从左到右是{heads}。",
        f"表头是白字，底色为{colour}。")
    rows = [[f"第{'一二三四五六'[i]}节", *d.some(_LESSONS, 5)] for i in range(count)]
    for i, row in enumerate(rows):
        quoted = _all(row, d)
        d.say(f"第{'一二三四五六'[i]}行从左到右是{quoted}。", f"表头下面第{'一二三四五六'[i]}行从左到右是{quoted}。")
    d.say(f"表头下面恰好有{NUMBERS_ZH[count]}行，第四行与第五行之间有一条粗线，表示午休。",
        f"表头下面恰好有{NUMBERS_ZH[count]}行。", "第四行与第五行之间有一条粗线。")
    at, day, shade = d.rng.randrange(count), d.rng.randrange(5), d.one(COLOURS_ZH)
    lesson = rows[at][day + 1]
    d.say(f"“{_DAYS[day]}”这一列的“{lesson}”用红铅笔圈了出来，"
        f"旁边手写着{d.render(d.one(_REMARKS), '红圈旁边的手写字', 'zh')}。",
          f"“{_DAYS[day]}”这一列的“{lesson}”用红笔圈出。")  # fmt: skip
    d.say(f"最右边一列的底色是很淡的{shade}，其余各列是白底。所有文字在格子里居中。", f"最右边一列的底色是淡{shade}。",
        "所有文字在格子里居中。")
    name = d.one(("王小禾", "林一舟", "陈果", "赵雨桐", "何田", "周子衿"))
    d.say(f"表格右下角贴着一张姓名贴，写着{d.render(name, '姓名贴', 'zh')}，姓名贴的一角已经翘起；"
        f"左下角画着一只戴帽子的小熊，不带文字。",
          "姓名贴的一角翘起。", "左下角画着一只戴帽子的小熊。")  # fmt: skip


def zh_board(d: Draft) -> None:
    count = d.rng.randint(5, 6)
    used = sorted(d.some(range(6), count))
    d.say(f"一块带木框的软木板上恰好钉着{NUMBERS_ZH[count]}张纸条，互不遮挡。",
        f"恰好有{NUMBERS_ZH[count]}张纸条，互不遮挡。")
    for at, (head, details, drawn), colour in zip(used, d.some(_SLIPS, count), d.some(COLOURS_ZH, count), strict=True):
        where, phone = _PLACES[at], f"{d.rng.randint(2000, 9999)} {d.rng.randint(1000, 9999)}"
        title = d.render(head, f"{where}纸条的标题", "zh")
        body, number = d.render(d.one(details), f"{where}纸条的第二行", "zh"), d.render(phone, f"{where}纸条的电话",
            "zh")
        d.say(f"{where}的纸条是{colour}的，标题为{title}，下面写着{body}，最后一行是较大的电话号码{number}；"
            f"纸条上还有{drawn}。",
              f"{where}的纸条是{colour}的。", f"{where}的纸条上有{drawn}。")  # fmt: skip
    pin, thing = d.one(COLOURS_ZH), d.one(("木框下沿挂着一把黄铜钥匙", "木框上方插着一枝干枯的玫瑰",
        "右侧用细绳吊着一支圆珠笔"))
    d.say(f"每张纸条只用一枚图钉固定，图钉都是{pin}的；{thing}。", f"图钉都是{pin}的。", f"{thing}。")


def zh_prices(d: Draft) -> None:
    name = d.render(d.one(ZH_NAMES) + d.one(ZH_INNS), "最上方的店名", "zh")
    d.say(f"这是一块价目牌，最上方居中写着店名{name}，店名两侧各画着一只碗。",
          "店名两侧各画着一只碗。")  # fmt: skip
    d.say(f"店名下面一行小字是{d.render(d.one(ZH_SLOGANS), '店名下面的小字', 'zh')}。")
    sections = d.some(tuple(_SECTIONS), 3)
    d.say(f"下面分成三栏，栏目名称从左到右是{_all(sections, d)}，每栏的名称下面画一条双线。",
        f"栏目名称从左到右是{''.join(f'“{s}”' for s in sections)}。", "每栏的名称下面有双线。")
    for section, where in zip(sections, ("左栏", "中栏", "右栏"), strict=True):
        dishes = [f"{dish} {d.rng.randint(4, 58)}元" for dish in d.some(_SECTIONS[section], d.rng.randint(3, 4))]
        quoted = _all(dishes, d)
        d.say(f"{where}从上到下有{NUMBERS_ZH[len(dishes)]}项，依次是{quoted}，菜名靠左，价格靠右。",
            f"{where}从上到下依次是{quoted}。")
    chosen = d.one(COLOURS_ZH)
    hours = f"营业时间 {d.rng.randint(6, 10)}:00-{d.rng.randint(19, 22)}:30"
    d.say(f"左下角贴着一张{chosen}的圆贴纸，"
        f"写着{d.render(d.one(('今日推荐', '新品', '售完为止', '微辣')), '左下角的圆贴纸', 'zh')}；"
        f"右下角写着{d.render(hours, '右下角', 'zh')}。", f"左下角有一张{chosen}的圆贴纸。")
    phone = f"{d.rng.randint(2000, 9999)} {d.rng.randint(1000, 9999)}"
    address = f"{d.one(ZH_NAMES)}路{d.rng.randint(2, 188)}号，电话 {phone}"
    d.say(f"最底部是一行地址{d.render(address, '最底部一行', 'zh')}，字最小。")
    colour, thing = d.one(COLOURS_ZH), d.one(("一条细回纹", "一圈云纹", "两道平行的细线"))
    d.say(f"整块牌子的底色是{colour}，四周用{thing}做边框，牌子下方露出半张木桌，桌上摆着一双筷子和一只倒扣的茶杯。",
          f"牌子的底色是{colour}。", f"边框是{thing}。", "木桌上有一双筷子和一只倒扣的茶杯。")  # fmt: skip


ZH_LONG_FORMS = {zh_programme: "海报", zh_branches: "思维导图", zh_timetable: "课程表", zh_board: "", zh_prices: ""}


def layout_zh(d: Draft) -> str:
    """One of the forms, of 330 to 600 characters."""
    form = d.one(tuple(ZH_LONG_FORMS))
    kind, surface, font = ZH_LONG_FORMS[form], d.one(ZH_SURFACES), d.one(ZH_FONTS)
    if kind:
        d.say(f"画面正中是一张{kind}，{surface}，正面拍摄，标题用{font}。", f"{kind}{surface}。", f"标题用{font}。")
    else:
        places = ("居民楼的门厅里", "音乐学校的走廊里", "图书馆入口处")
        if form is zh_prices:
            places = ("小吃街的转角处", "社区食堂里", "老街的店门口")
        place = d.one(places)
        d.say(f"照片拍摄于{place}，镜头正对墙面，大字用{font}。", f"大字用{font}。")
    form(d)
    d.say(d.one(("每个字笔画清晰、完整，除此之外没有别的文字。", "文字横平竖直，没有错字、漏字和重复，"
        "背景里也没有其他文字。")), "除要求的文字外没有别的文字。")
    return d.prompt("zh")
