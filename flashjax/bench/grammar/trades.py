# ruff: noqa: RUF001 (Chinese punctuation)
"""Places where a long portrait can be set: what one does there, what lies at hand, what is behind, what is written."""

from __future__ import annotations

from typing import NamedTuple

Told = tuple[str, str]  # a sentence of a prompt, and the fact that it makes


class Trade(NamedTuple):
    """``place`` and ``does`` continue "a woman ..."; ``signs``: where, and what may be written there."""

    place: str
    does: tuple[str, ...]
    near: tuple[str, ...]
    back: tuple[str, ...]
    far: tuple[str, ...]
    signs: tuple[tuple[str, tuple[str, ...]], ...]


TRADES = (
    Trade(
        "in a repair shop for radios",
        ("holds a soldering iron in the right hand and a screwdriver in the left",
            "lifts the back off a wooden radio with both hands", "turns the tuning knob of a radio between two "
            "fingers"),
        ("an open radio with five valves in a row lies on the bench", "a magnifying lamp on a jointed arm is pulled "
            "down to the height of the chin", "a tin box has tipped over, and seven screws have rolled to the edge of "
            "the bench", "a pair of headphones hangs from the corner of the bench"),
        ("shelves with radios rise to the ceiling, wooden ones below and plastic ones above",
            "coils of wire hang on nails, sorted by colour", "a wall of small drawers has one drawer pulled out"),
        ("through the open back door one sees a yard with a parked moped",
            "a window at the very back shows a tram in the rain"),
        (("a card that leans against the radio", ("REPAIRS WHILE YOU WAIT", "NO CASSETTES", "READY ON FRIDAY")),
            ("an enamel plate on the wall", ("SOUND & SON, SINCE 1952", "OPEN 9 TO 5, MOSTLY")),
            ("a paper label tied to the lamp", ("HOT", "JOB 118", "DO NOT TUNE")), ("the lid of the tin box",
            ("SCREWS M3", "桂花糕"))),
    ),
    Trade(
        "behind the counter of a market stall",
        ("pulls noodles between both raised hands", "ladles soup into a bowl with the right hand and steadies the "
            "bowl with the left", "counts coins from one palm into the other"),
        ("a wok throws up a flame as tall as a hand", "four bowls stand on the counter, one of them empty",
            "a bundle of spring onions lies beside a cleaver", "chopsticks stand in a tin can without a label"),
        ("a string of round paper lanterns crosses the picture behind the head",
            "two customers on stools have their backs to the viewer", "steam hides the upper half of the neighbouring "
            "stall"),
        ("at the end of the lane a pagoda roof rises above the houses",
            "far down the lane the crowd is no more than coloured dots"),
        (("a hand-lettered board above the counter", ("牛肉面 18 元", "OPEN UNTIL DAWN", "今日特价：梨汤")),
            ("a strip of red paper on the left post", ("生意兴隆", "四季平安")), ("a cardboard sign beside the bowls",
            ("CASH ONLY", "自取筷子", "SMALL OR LARGE, NO MEDIUM")), ("the lantern nearest to the viewer", ("面",
            "福"))),
    ),
    Trade(
        "in a greenhouse full of orchids",
        ("mists a white orchid from a glass sprayer", "ties a stem to a cane, thumb and forefinger touching",
            "lifts an orchid out of its pot to look at the roots"),
        ("six clay pots stand in a row on the slatted bench", "a coiled green hose lies beside the pots",
            "a pair of pruning shears is open on a folded newspaper", "a snail sits on the rim of the nearest pot"),
        ("orchids hang from the beams in baskets, white on the left and purple on the right",
            "condensed water has run down the panes in crooked lines", "a ladder on wheels stands in the aisle"),
        ("through the fogged glass one can make out the shape of a chimney",
            "the aisle ends at a round window with one broken pane"),
        (("a label stuck into the nearest pot", ("No. 27 DO NOT WATER", "VANDA, 2 YEARS", "蝴蝶兰 3 号")),
            ("a slate that hangs from a beam", ("SHUT THE DOOR", "22 °C, 80 %")), ("a badge on the chest",
            ("HEAD GARDENER", "VOLUNTEER", "园丁")), ("a sack on the floor", ("BARK, COARSE", "PEAT FREE"))),
    ),
    Trade(
        "at the counter of a bakery before opening time",
        ("dusts a loaf with flour from a small sieve", "carries a tray of buns on the raised left palm",
            "cuts a pattern into dough with a razor blade"),
        ("eight round loaves cool on a wire rack", "a brass scale stands on the counter, one pan lower than the other",
            "a rolling pin lies across an open recipe book", "flour on the counter shows the print of one hand"),
        ("the open oven glows orange", "wicker baskets hang from hooks under the ceiling",
            "a second baker, out of focus, kneads with bent back"),
        ("through the shop window one sees a street sweeper with a broom",
            "at the back a door stands open to a yard with snow"),
        (("a chalkboard on the wall", ("FRESH RYE 4.80", "TODAY: PLUM TART", "今日：红豆包")),
            ("a paper flag stuck into the largest loaf", ("2 kg", "YESTERDAY'S, HALF PRICE")),
            ("a card in the shop window, seen from the front", ("CLOSED UNTIL 6", "BACK IN TEN MINUTES")),
            ("the spine of the recipe book", ("DOUGH", "GRANDMOTHER'S BOOK"))),
    ),
    Trade(
        "in a library with a spiral staircase",
        ("holds a magnifying glass over an open atlas", "stamps a card with the right hand and holds the book open "
            "with the left", "carries a stack of five books under the chin"),
        ("a green-shaded lamp stands on the table", "an atlas lies open at a map of islands",
            "a pair of white cotton gloves lies on a closed book", "three pencils of different lengths lie in "
            "parallel"),
        ("the spiral staircase of black iron winds up to the gallery", "shelves run in three storeys along the wall",
            "a child sits on the lowest step of the staircase and reads"),
        ("high up a round window lets in one beam with dust in it", "at the end of the gallery a tiny figure stands "
            "on a ladder"),
        (("a brass plate on the shelf", ("MAPS A-K", "NATURAL HISTORY", "古籍部")), ("a card in a stand on the table",
            ("QUIET, PLEASE", "请勿喧哗", "RETURNS HERE")), ("the cover of the topmost book", ("THE SALT ATLAS",
            "MOTHS OF THE NORTH")), ("a paper slip that sticks out of the atlas", ("p. 212", "WRONG ISLAND"))),
    ),
    Trade(
        "in a laundrette with round doors along one wall",
        ("folds a striped sheet, its corners held in both hands", "feeds a coin into a slot",
            "pulls a long red sock out of a drum"),
        ("a wicker basket full of towels stands on the bench", "a box of washing powder has left a white line on the "
            "floor", "a paperback lies open, face down, on the nearest machine",
            "a single glove hangs over the edge of the basket"),
        ("eight round doors shine in two rows of four, one of them open",
            "a drum full of yellow cloth turns behind the glass", "an old man sleeps on a plastic chair under the "
            "clock"),
        ("the window at the back shows a wet street with a bus", "in the corner a vending machine glows blue"),
        (("a notice on the wall", ("NO DYEING", "LAST WASH 21:30", "LOST & FOUND")), ("a sticker on the open door",
            ("OUT OF ORDER", "MACHINE 6", "故障")), ("the washing powder box", ("SNOWDROP", "BRIGHT 40°")),
            ("a neon sign in the window, not mirrored,", ("WASH", "OPEN", "自助洗衣"))),
    ),
    Trade(
        "at a potter's wheel in a whitewashed workshop",
        ("shapes the rim of a bowl between both hands", "cuts a pot from the wheel with a wire",
            "scratches a line into wet clay with a wooden needle"),
        ("a grey bowl stands on the wheel, wet and shining", "a bucket of slip has dripped on the floor",
            "three sponges lie on the splash pan", "a lump of clay waits under a damp cloth"),
        ("unfired pots fill a shelf, nine in the lowest row", "glazed tiles in three blues hang on the wall",
            "a cat sleeps on the cold kiln"),
        ("the window looks out on a yard with a wood pile", "a half-open door leads to a room with a lit kiln"),
        (("a slip of paper pinned to the shelf", ("NOT DRY YET", "FIRING: THURSDAY", "未干勿碰")),
            ("the front of the kiln", ("KILN 2", "1,240 °C")), ("the apron, as embroidery,", ("ROSA", "CLAY DAY",
            "青石陶坊")), ("a bag of clay on the floor", ("STONEWARE 25 kg", "RED CLAY"))),
    ),
    Trade(
        "under the awning of a flower stand",
        ("wraps a bunch of tulips in brown paper", "strips the leaves from a rose with one hand",
            "hands a sunflower towards the viewer"),
        ("five zinc buckets stand in front, each with one kind of flower",
            "a reel of string hangs from a hook at the height of the shoulder",
            "cut stems lie scattered on the pavement", "a watering can with a dented spout stands on a crate"),
        ("a staircase leads down to an underground station", "a tram with lit windows crosses the picture",
            "a boy on a scooter passes, blurred"),
        ("at the end of the street a church tower has a clock that shows ten past four",
            "far away, a bridge is hung with flags"),
        (("a price tag in the nearest bucket", ("TULIPS 10 FOR 6", "ROSES 3.50", "郁金香 十枝 30 元")),
            ("the edge of the awning", ("FLOWERS & THORNS", "MAISON PIVOINE")), ("a sign above the staircase",
            ("STATION SQUARE", "EXIT 4", "地铁 2 号线")), ("a card tied to the bunch", ("GET WELL, ADA", "SORRY AGAIN",
            "生日快乐"))),
    ),
    Trade(
        "on the platform of a country station",
        ("winds a pocket watch and looks at it", "raises a green signal disc with the right hand",
            "ties a label to the handle of a suitcase"),
        ("two brown suitcases stand side by side, the larger one with a strap",
            "a thermos flask and a cup stand on the bench", "a terrier sits on the smaller suitcase",
            "a folded umbrella leans against the bench"),
        ("a red brick building with an arched door is covered with vines", "six milk cans wait on a trolley",
            "a woman looks out of the window above the door"),
        ("far down the line a steam engine comes round the bend", "the rails meet at a signal with a raised arm"),
        (("the long board under the roof", ("PLATFORM 2", "KESTREL BAY", "EASTWICK JUNCTION")),
            ("the label on the suitcase", ("TO HOLM", "FRAGILE", "易碎")), ("a poster beside the door", ("MIND THE GAP",
            "SEE THE DUNES")), ("the cap's badge", ("GUARD", "STATION MASTER", "站长"))),
    ),
    Trade(
        "on the upper deck of a ferry",
        ("holds on to the rail with one hand and to a hat with the other",
            "pours tea from a flask while leaning into the wind", "points at something far away with an outstretched "
            "left arm"),
        ("four lifebelts hang in a row on the railing", "a rope is coiled like a snail on the planks",
            "a seagull stands on the rail an arm's length away", "a child's bucket full of shells stands on the bench"),
        ("a white funnel with a black band rises into the sky", "three benches are empty and wet",
            "a deckhand in oilskins lashes down a crate"),
        ("a chain of islands lies along the horizon, each paler than the last",
            "a second ferry, no larger than a thumbnail, crosses on the horizon"),
        (("the nearest lifebelt", ("MS HALCYON", "TIDEWATER 3", "海鸥号")), ("a sign screwed to the railing",
            ("NO FEEDING OF GULLS", "CREW ONLY", "小心台阶")), ("the crate", ("THIS SIDE UP", "HERRING, 40 kg")),
            ("the funnel", ("H", "NORDLINE"))),
    ),
    Trade(
        "in a school corridor with lockers",
        ("pins a drawing to a board with the thumb", "balances a globe on the fingertips of the right hand",
            "writes with the left hand in a ruled notebook held against a locker"),
        ("a skateboard stands upright against the lockers", "a lunch box is open on the floor and shows half a "
            "sandwich", "a trombone case lies across the bench", "four paper planes lie on the linoleum"),
        ("a row of lockers in alternating grey and green runs along the wall",
            "a cleaner's trolley with a mop stands in the corridor", "children's drawings of whales cover the wall "
            "above"),
        ("at the far end a glass door lets in white light", "far away, two small figures run away from the viewer"),
        (("the door on the right", ("ROOM 214", "MUSIC", "STAFF ROOM", "三年二班")),
            ("a paper banner across the corridor", ("WELCOME BACK", "SCIENCE WEEK", "毕业快乐")),
            ("the open locker's door, on a strip of tape,", ("KEEP OUT, TOM", "42B")),
            ("a trophy on top of the lockers", ("CHESS 1987", "THIRD PLACE"))),
    ),
    Trade(
        "in a tiled swimming hall without water",
        ("sits on the edge of the pool and laces a roller skate", "sweeps leaves together with a long broom",
            "plays a cello at the bottom of the pool"),
        ("a yellow rubber duck lies on the dry tiles", "a music stand holds one page with a clothes peg",
            "a folded towel and a whistle lie on the starting block", "a garden chair stands on the deepest spot"),
        ("the diving tower with two platforms rises to the roof", "lane lines of blue tiles run towards the back wall",
            "a rope of red and white floats hangs in a loop on the wall"),
        ("high windows at the back show bare trees", "at the far end a door to the showers stands open, and light "
            "falls out of it"),
        (("the wall, in blue mosaic,", ("3.80 m", "DEEP END", "深水区")), ("an enamel sign beside the ladder",
            ("NO RUNNING", "NO DIVING SINCE 1994")), ("the starting block", ("LANE 4", "5")),
            ("a page stuck to the wall", ("REHEARSAL 7 PM", "CLOSED FOR GOOD"))),
    ),
)  # fmt: skip
