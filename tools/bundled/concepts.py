"""What there is in the miniature world: the things, by the name a person would use, and where their pictures are.

Every concept lists the icon names ("slugs") under which the artwork sets hold it; a set that lacks one of them
simply has fewer pictures of the concept. A group is the word for the kind of thing ("an animal").
"""

from __future__ import annotations

from dataclasses import dataclass

_TABLE: dict[str, str] = {
    "animal": """
        dog: dog, dog-face | cat: cat, cat-face | lion: lion, lion-face | tiger: tiger, tiger-face
        horse: horse, horse-face | cow: cow, cow-face | pig: pig, pig-face | goat: goat | sheep: ewe
        camel: camel, two-hump-camel | elephant: elephant | rhinoceros: rhinoceros | mouse: mouse, mouse-face
        rabbit: rabbit, rabbit-face | squirrel: chipmunk | bat: bat | bear: bear, bear-face | koala: koala
        panda: panda, panda-face | monkey: monkey, monkey-face | gorilla: gorilla | wolf: wolf, wolf-face
        fox: fox, fox-face | deer: deer | turkey: turkey | rooster: rooster
        chick: baby-chick, front-facing-baby-chick | bird: bird | penguin: penguin | eagle: eagle | duck: duck
        owl: owl | frog: frog, frog-face | crocodile: crocodile | turtle: turtle | lizard: lizard | snake: snake
        whale: whale, spouting-whale | dolphin: dolphin | fish: fish, tropical-fish | shark: shark
        octopus: octopus | squid: squid | crab: crab | shrimp: shrimp | snail: snail | butterfly: butterfly
        caterpillar: bug | ant: ant
        bee: honeybee | ladybug: lady-beetle | spider: spider | scorpion: scorpion | unicorn: unicorn, unicorn-face""",
    "food": """
        grapes: grapes | melon: melon | watermelon: watermelon | lemon: lemon | banana: banana | pineapple: pineapple
        apple: red-apple, green-apple | pear: pear | cherries: cherries | strawberry: strawberry | kiwi: kiwi-fruit
        avocado: avocado | eggplant: eggplant | potato: potato | carrot: carrot | corn: ear-of-corn
        chili pepper: hot-pepper | cucumber: cucumber | peanuts: peanuts | bread: bread | croissant: croissant
        pancakes: pancakes | cheese: cheese-wedge | hamburger: hamburger | french fries: french-fries | pizza: pizza
        hot dog: hot-dog | taco: taco | popcorn: popcorn | sushi: sushi | ice cream: ice-cream, soft-ice-cream
        doughnut: doughnut | cookie: cookie | cake: birthday-cake, shortcake | chocolate bar: chocolate-bar
        candy: candy
        lollipop: lollipop | coffee: hot-beverage | wine glass: wine-glass | beer: beer-mug""",
    "vehicle": """
        car: automobile, oncoming-automobile | taxi: taxi, oncoming-taxi | bus: bus, oncoming-bus | ambulance: ambulance
        fire engine: fire-engine | police car: police-car, oncoming-police-car
        truck: delivery-truck, articulated-lorry | tractor: tractor | racing car: racing-car
        motorcycle: motorcycle | scooter: motor-scooter | bicycle: bicycle
        train: train, locomotive, high-speed-train | sailboat: sailboat | speedboat: speedboat, motor-boat
        ship: ship, passenger-ship | canoe: canoe | airplane: airplane, small-airplane | helicopter: helicopter
        rocket: rocket""",
    "plant": """
        rose: rose | sunflower: sunflower | tulip: tulip | cactus: cactus | mushroom: mushroom | palm tree: palm-tree
        tree: deciduous-tree | pine tree: evergreen-tree | shamrock: shamrock, four-leaf-clover
        maple leaf: maple-leaf""",
    "building": "house: house, house-with-garden | castle: castle | church: church | factory: factory | tent: tent",
    "piece of clothing": """
        glasses: glasses | sunglasses: sunglasses | t-shirt: t-shirt | jeans: jeans | dress: dress | necktie: necktie
        handbag: handbag, purse | backpack: backpack | shoe: mans-shoe, running-shoe | high heel: high-heeled-shoe
        crown: crown | top hat: top-hat | ring: ring""",
    "musical instrument": "guitar: guitar | violin: violin | trumpet: trumpet | saxophone: saxophone | drum: drum",
    "tool": """
        hammer: hammer | wrench: wrench | knife: kitchen-knife | scissors: scissors | key: key, old-key | lock: locked
        pencil: pencil | paintbrush: paintbrush | gear: gear | magnifying glass: magnifying-glass-tilted-left
        microscope: microscope | telescope: telescope | syringe: syringe | pill: pill | flashlight: flashlight
        paperclip: paperclip""",
    "household item": """
        umbrella: umbrella, closed-umbrella | bell: bell | microphone: microphone | radio: radio | telephone: telephone
        mobile phone: mobile-phone | battery: battery | laptop: laptop, laptop-computer | printer: printer
        camera: camera, camera-with-flash | television: television | candle: candle | light bulb: light-bulb
        book: closed-book, green-book, blue-book | envelope: envelope | package: package | door: door | toilet: toilet
        bathtub: bathtub | alarm clock: alarm-clock | watch: watch | hourglass: hourglass-done, hourglass-not-done
        trophy: trophy | balloon: balloon | gift: wrapped-gift | bomb: bomb | shield: shield | anchor: anchor""",
    "toy": """
        soccer ball: soccer-ball | basketball: basketball | football: american-football | boxing glove: boxing-glove
        video game: video-game | snowman: snowman, snowman-without-snow | ghost: ghost | robot: robot, robot-face
        alien: alien | skull: skull""",
}


@dataclass(frozen=True)
class Concept:
    """One thing of the world: its name, the kind of thing it is, and the icon names that show it."""

    name: str
    group: str
    slugs: tuple[str, ...]


def _parse() -> tuple[Concept, ...]:
    found = []
    for group, text in _TABLE.items():
        for entry in text.replace("\n", "|").split("|"):
            if entry.strip():
                name, slugs = entry.split(":")
                found.append(Concept(name.strip(), group, tuple(s.strip() for s in slugs.split(","))))
    return tuple(found)


CONCEPTS: tuple[Concept, ...] = _parse()
GROUPS: tuple[str, ...] = tuple(_TABLE)
INDEX: dict[str, int] = {c.name: i for i, c in enumerate(CONCEPTS)}


def named(group: str) -> list[str]:
    """Names of the concepts of one group, in the table's order."""
    return [c.name for c in CONCEPTS if c.group == group]
