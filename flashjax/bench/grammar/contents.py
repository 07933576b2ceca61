"""What long text-centric prompts are filled with."""

EVENTS = {
    "Book Fair": (
        ("Reading by {name}", "Bookbinding for beginners", "Quiz for families", "Swap table opens", "Poems in the yard",
            "Auction of first editions", "How an index is made", "Closing tea"),
        ("an open book from which five birds fly up", "a tower of seven leaning books", "a reading lamp with a moth"),
    ),
    "Jazz Night": (
        ("Doors and soup", "{name} Trio", "Open stage", "Brass on the stairs", "Bass duet", "The {name} Sisters",
            "Slow dances", "Last round"),
        ("a double bass with a cat in place of its player", "three trumpets that cross like swords",
            "a piano keyboard that bends into a street"),
    ),
    "Seed Swap": (
        ("Tables open", "Beans of the valley", "Grafting with {name}", "Compost clinic", "Soup from last year",
            "Talk: bees in town", "Raffle", "Children sow peas"),
        ("a hand from which nine seeds fall", "one large bean pod with six beans", "a scarecrow with a watering can"),
    ),
    "Chess Open": (
        ("Registration", "Round one", "Blindfold game by {name}", "Round two", "Simultaneous display",
            "Lunch and analysis", "Final", "Prize-giving"),
        ("a white knight that looks into a mirror and sees a black one", "a chess clock with two different times",
            "a king lying on its side before eight pawns"),
    ),
    "Kite Festival": (
        ("Wind check", "Paper kites for beginners", "Fighting kites", "Team flight", "Kites by {name}", "Longest tail",
            "Candy drop", "Night kites with lamps"),
        ("four kites in the form of fish", "a kite with a tail of eleven bows",
            "a child pulled off the ground by a box kite"),
    ),
    "Repair Cafe": (
        ("Coffee and queue", "Toasters and kettles", "Knives are sharpened", "Darning with {name}", "Bicycle corner",
            "Lamps and plugs", "Glue hour", "What could not be saved"),
        ("a toaster with a bandage and two slices", "a crossed needle and screwdriver",
            "a chair on three legs and a crutch"),
    ),
    "Film Week": (
        ("Short films", "Matinee for children", "Talk with {name}", "Silent film with organ", "The uncut version",
            "Student prize", "Midnight surprise", "Popcorn for all"),
        ("a film strip in the form of a staircase", "a projector whose beam is full of moths",
            "six empty seats, one with a hat on it"),
    ),
    "Clay Workshop": (
        ("Wedging the clay", "Pinch pots", "On the wheel with {name}", "Slab boxes", "Glazes explained",
            "Kiln is loaded", "Handles and spouts", "Tea from own cups"),
        ("two hands round a leaning bowl", "a jug with a bird for a spout", "a row of five cups, the last one broken"),
    ),
    "Night Run": (
        ("Numbers are handed out", "Warm-up with {name}", "Start 10 km", "Start 5 km", "Children's mile",
            "Soup at the finish", "Lantern parade", "Winners on stage"),
        ("a row of seven runners as shadows under one lamp", "a running shoe with a moon for a heel",
            "an owl with a number on its chest"),
    ),
}  # fmt: skip
FIRMS = ("Novak Tyres", "Bellini Ices", "Holm Savings Bank", "Whitby Rope", "Tanaka Pianos", "Radio Calder",
    "Fernley Dairy", "Iyer Spices", "Quispe Wool", "The Copper Kettle", "Dunmore Cycles",
    "Okafor & Daughters")  # fmt: skip
EMBLEMS = ("a wheel", "a crown", "a leaf", "an anchor", "a bell", "a key", "a snail", "a sun", "a kettle", "an owl",
    "a comb", "a fish")  # fmt: skip
WARNINGS = ("No dogs, no drones", "Keep this sheet", "Rain or shine", "Bring your own cup",
    "Not for children under three", "Please do not lean bicycles here", "Printed on old maps",
    "Errors are ours")  # fmt: skip
HUBS = ("a hand-drawn cloud", "a circle with a double outline", "a hexagon", "an open book seen from above",
    "a light bulb", "a leaf")
DOODLES = ("a small drawing of a snail", "a red question mark", "a tiny clock without hands",
    "a doodle of a paper plane", "a coffee ring", "a star drawn in one line")
NOTES = ("ask M. about this", "draft 3", "to be continued", "see page 48", "Tuesday!", "one branch too many?")
MAPS = {
    "Sleep": {"Light": ("Blue screens", "Blackout blind", "Dawn"), "Food": ("No coffee after 2", "Small supper",
    "Cherry juice"), "Body": ("Cool feet", "Slow breath", "Stretching"), "Noise": ("Earplugs", "Fan", "Rain sounds"),
    "Habits": ("Same hour", "Paper book", "No phone"), "Naps": ("20 minutes", "Before 3 pm"), "Dreams": ("Diary",
    "Recurring", "Lucid")},
    "Volcanoes": {"Types": ("Shield", "Cone", "Caldera"), "Magma": ("Basalt", "Rhyolite", "Gas"),
    "Dangers": ("Ash fall", "Mud flows", "Lightning"), "Signs": ("Tremors", "Swelling", "Smell"), "Benefits": ("Soil",
    "Heat", "Pumice"), "Famous": ("Etna", "Fuji", "Krakatoa"), "Tools": ("Seismograph", "Drone", "Thermometer"),
    "Places": ("Rifts", "Hot spots", "Island arcs")},
    "Bicycles": {"Frame": ("Steel", "Bamboo", "Weld"), "Wheels": ("Spokes", "Tubes", "Rims"), "Drive": ("Chain", "Belt",
    "Hub gear"), "Brakes": ("Disc", "Rim", "Coaster"), "Lights": ("Dynamo", "Reflector"), "Luggage": ("Rack", "Basket",
    "Trailer"), "Care": ("Oil", "Pump", "Rag")},
    "Bread": {"Flour": ("Rye", "Wheat", "Spelt"), "Leaven": ("Sourdough", "Yeast", "Soda"), "Water": ("Lukewarm",
    "Hydration"), "Shaping": ("Folding", "Basket", "Scoring"), "Baking": ("Steam", "Stone", "Crust"),
    "Keeping": ("Linen bag", "Freezer", "Never the fridge"), "Leftovers": ("Crumbs", "Soup", "Pudding")},
    "Moving House": {"Boxes": ("Books", "Kitchen", "Fragile"), "Papers": ("New lease", "Meter readings", "Keys"),
    "People": ("Neighbours", "Movers", "Cat sitter"), "Old flat": ("Paint", "Drill holes", "Last look"),
    "New flat": ("Measure", "Lamps first", "Name plate"), "Money": ("Deposit", "Van", "Pizza"), "Throw away": ("Cables",
    "One of two", "Mystery jar")},
    "A Short Story": {"Hero": ("Wants", "Fears", "Lies about"), "Place": ("Island", "Out of season", "One road"),
    "Trouble": ("A letter", "Storm", "A twin"), "Middle": ("False friend", "Lost key"), "Ending": ("Open", "By sea",
    "Ten years on"), "Voice": ("First person", "Past tense"), "Title": ("Short", "A question", "From page one"),
    "Rules": ("No dreams", "No villains", "Cut adverbs")},
    "Rivers": {"Source": ("Spring", "Glacier", "Bog"), "Course": ("Rapids", "Meander", "Oxbow"), "Mouth": ("Delta",
    "Estuary"), "Life": ("Otter", "Mayfly", "Willow"), "Use": ("Mill", "Barge", "Drinking water"), "Risk": ("Flood",
    "Drought", "Plastic"), "Crossing": ("Ford", "Ferry", "Bridge")},
    "Tea": {"Kinds": ("White", "Oolong", "Pu-erh"), "Water": ("Soft", "80 °C", "Fresh"), "Vessels": ("Gaiwan", "Glass",
    "Samovar"), "Places": ("Assam", "Uji", "Fujian"), "With": ("Lemon", "Milk", "Nothing"), "Errors": ("Too long",
    "Too hot", "Dust bags"), "Hours": ("Dawn", "Four o'clock")},
}  # fmt: skip
# title, head of the first column, and of the others: head, lowest, highest figure
TABLES = (
    ("Rainfall and Wind, April", "Station", (("Rain mm", 11, 98), ("Wet days", 3, 25), ("Gusts km/h", 30, 119),
        ("Frost", 0, 9), ("Sun h", 80, 240))),
    ("Honey Harvest by Village", "Village", (("Hives", 4, 60), ("Swarms", 0, 9), ("Kilos", 100, 990), ("Jars", 210,
        1900), ("Losses", 0, 8))),
    ("Ferry Passengers per Week", "Pier", (("Adults", 210, 990), ("Children", 40, 199), ("Bicycles", 12, 95), ("Dogs",
        1, 39), ("Cars", 100, 480))),
    ("Library Loans in Winter", "Branch", (("Novels", 120, 890), ("Comics", 90, 640), ("Maps", 2, 40), ("Films", 30,
        300), ("Late", 3, 77))),
    ("Apple Weights at the Show", "Orchard", (("Pippin g", 110, 280), ("Russet g", 90, 240), ("Codlin g", 120, 310),
        ("Entries", 3, 19), ("Prizes", 0, 5))),
    ("Trams: Delays and Repairs", "Depot", (("Trams", 14, 60), ("Late", 5, 99), ("Doors", 0, 12), ("Brakes", 0, 14),
        ("Lost hats", 1, 31))),
)  # fmt: skip
REMARKS = ("really?", "check again", "a record!", "ask Ada", "typo", "see last year")
SOURCES = ("Figures without guarantee", "Counted by hand, twice", "Source: the harbour master", "No data for May",
    "Rounded to whole numbers", "As reported on Monday")
ANIMALS = ("badger", "heron", "fox", "tortoise", "hedgehog", "crow", "otter", "goat", "mole", "hare")
THINGS = ("umbrella", "suitcase", "birthday cake", "ladder", "kettle", "cuckoo clock", "balloon", "trombone")
STREETS = ("in a narrow street with shop fronts", "in a park with a round pond", "on a railway platform",
    "in a market square", "on a roof with chimneys")
GARMENTS = ("a {} scarf", "a {} waistcoat", "a {} bow tie", "a {} raincoat", "{} dungarees", "a {} cap")
# The six beats of a story about a thing: what is seen, where the text is, the text.
BEATS = (
    (("the {a} carries the {thing} under one arm {place}", "the {a}'s bubble", "Special delivery!"),
        ("the {a} lifts the {thing} out of a dustbin {place}", "the {a}'s bubble", "Who throws this away?"),
        ("the {a} polishes the {thing} on a bench {place}", "the {a}'s bubble", "As good as new.")),
    (("the {b} leans into the panel from the right and points at the {thing}", "the {b}'s bubble", "Is that mine?"),
        ("the {b} looks at the {thing} through a magnifying glass", "the {b}'s bubble", "Made in 1904."),
        ("the {b} holds out three coins in an open paw", "the {b}'s bubble", "I'll buy it.")),
    (("the {a} and the {b} both pull at the {thing}", "the {a}'s bubble", "Let go, please."),
        ("the {a} hides the {thing} behind its back", "the {a}'s bubble", "Which thing?"),
        ("the {a} writes a list while the {b} yawns", "the {b}'s bubble", "Must we?")),
    (("the {thing} flies out of the picture at the top", "the sound in jagged yellow letters", "WHOOSH"),
        ("the {thing} falls down a flight of stairs", "the sound in shaking red letters", "CLANG"),
        ("the {thing} lands in water and throws up a crown of drops", "the sound in blue letters", "SPLOSH")),
    (("the {a} and the {b}, seen from behind, stand side by side and look up", "the {b}'s bubble", "Not again."),
        ("the {a} and the {b} run after it, legs drawn as wheels", "the {a}'s bubble", "After you!"),
        ("the {a} measures the distance with its thumb", "the {a}'s bubble", "Four metres, maybe five.")),
    (("the {a} and the {b} sit back to back on the ground and share an apple", "the {b}'s bubble",
        "We never needed it."), ("a snail with the {thing} on its back leaves at the left edge", "the snail's bubble",
        "Finders keepers."), ("the {b} hands the {a} the {thing}, mended with tape", "the {b}'s bubble",
        "Happy birthday.")),
)  # fmt: skip
SLIPS = (
    ("LOST CAT", ("Answers to Biscuit", "One white paw"), "a drawing of a sitting cat"),
    ("PIANO LESSONS", ("First hour free", "All ages, no scales"), "a row of piano keys printed along the bottom"),
    ("ROOM TO LET", ("Attic, 14 square metres", "Shared kitchen, quiet"), "a floor plan sketched beside the text"),
    ("CHOIR SEEKS TENORS", ("Mondays at half past seven", "No audition"), "three notes drawn in the margin"),
    ("BICYCLE FOR SALE", ("Blue, three gears", "Hardly ridden, good brakes"), "a photograph of a bicycle glued to it"),
    ("FRENCH FOR COFFEE", ("One hour, one cup", "Beginners welcome"), "a brown ring left by a cup"),
    ("FOUND: ONE GLOVE", ("Left hand, red wool", "On the tram, Sunday"), "the outline of a hand below the text"),
    ("MOVING HELP WANTED", ("Saturday, fourth floor", "Pizza included"), "a drawing of two stick figures with a sofa"),
    ("BEGINNERS' YOGA", ("Bring a blanket", "In the old fire station"),
        "six strips to tear off at the bottom, two of them missing"),
    ("BOOKS TO GIVE AWAY", ("Forty crime novels", "Collect before Friday"), "one corner folded over"),
)  # fmt: skip
HANGING = ("a brass key hangs from the lower edge of the frame", "a dried rose is stuck behind the frame at the top",
    "a black and white photograph of a dog leans against the frame at the bottom",
    "a ball-point pen dangles on a string at the right")
WALLS = ("in the entrance of a block of flats", "in the corridor of a music school", "in a laundrette",
    "beside the till of a grocer's shop", "in the hall of a library")
SHEETS = (
    ("How to Repot a Fern", (("Water it the day before", "a can over a pot"), ("Spread a newspaper",
        "a sheet with a pot on it"), ("Tap the pot loose", "a hand and a tilted pot"), ("Untangle the roots",
        "ten fingers in roots"), ("Fill in fresh soil", "a trowel"), ("Set the fern upright",
        "a fern and a vertical dashed line"), ("Press down gently", "two thumbs"), ("Keep it out of the sun",
        "a crossed-out sun")), ("1 larger pot", "2 litres of soil", "1 trowel")),
    ("How to Change an Inner Tube", (("Open the brake", "a brake caliper"), ("Take out the wheel",
        "a wheel beside a fork"), ("Lift off the tyre", "two levers under a tyre"), ("Pull out the tube",
        "a tube with a hole"), ("Feel for the thorn", "a fingertip inside a tyre"), ("Insert the new tube",
        "a tube half in the tyre"), ("Pump to 4 bar", "a pump with a gauge"), ("Close the brake", "a hand on a lever")),
        ("2 tyre levers", "1 tube", "1 pump")),
    ("How to Make Green Tea", (("Boil fresh water", "a kettle with steam"), ("Wait four minutes", "an hourglass"),
        ("Warm the pot", "a pot with wavy lines"), ("Add two spoons of leaves", "two spoons"), ("Pour in circles",
        "a spout and a spiral"), ("Steep for two minutes", "a clock at two past"), ("Pour to the last drop",
        "one drop above a cup")), ("1 pot", "500 ml of water", "2 spoons of tea")),
    ("How to Mend a Sock", (("Turn it inside out", "a sock with a seam"), ("Stretch it over an egg",
        "an egg inside a sock"), ("Thread the needle", "a needle and an eye"), ("Sew lines across the hole",
        "five parallel threads"), ("Weave over and under", "a chessboard of threads"), ("Cut the thread",
        "open scissors"), ("Wear it with pride", "a foot with rays")), ("1 needle", "Wool", "1 wooden egg")),
    ("In Case of Fire", (("Keep calm", "a face with a straight mouth"), ("Warn the others",
        "a hand that knocks at a door"), ("Close the windows", "a closed window"), ("Leave everything",
        "a crossed-out suitcase"), ("Take the stairs", "a person on stairs"), ("Never use the lift",
        "a crossed-out lift"), ("Meet at the lime tree", "a tree and four arrows")), ("Alarm 112", "Porter 7",
        "Exit B")),
    ("How to Develop a Film", (("Make the room dark", "a lamp with a cross"), ("Load the spool", "a spool and a film"),
        ("Pour in the developer", "a jug above a tank"), ("Tilt it every minute", "a tank with two curved arrows"),
        ("Add the stop bath", "a second jug"), ("Fix for five minutes", "a clock at five past"), ("Rinse under the tap",
        "a tap"), ("Hang it up to dry", "a strip on a clothes peg")), ("3 jugs", "1 tank", "1 thermometer")),
)  # fmt: skip
CLOSINGS = (
    "All words are sharp, level and complete, and there is no other text.",
    "Letters are evenly spaced, no word is doubled or cut, and nothing else is written anywhere.",
    "Every line can be read without effort; there is no text besides, not even in the background.",
)  # fmt: skip
