"""What there is in the miniature world: the things, by the name a person would use, and where their pictures are.

Every concept lists the icon names ("slugs") under which the artwork sets hold it; a set that lacks one of them
simply has fewer pictures of the concept. A group is the word for the kind of thing ("an animal"; "a bird").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TABLE: dict[str, str] = {
    "animal, mammal": """
        dog: dog, dog-face, poodle | cat: cat, cat-face | lion: lion | tiger: tiger, tiger-face
        horse: horse, horse-face | cow: cow, cow-face | pig: pig, pig-face | goat: goat | sheep: ewe, ram
        camel: camel, two-hump-camel | elephant: elephant | rhinoceros: rhinoceros | mouse: mouse, mouse-face
        rabbit: rabbit, rabbit-face | squirrel: chipmunk | bear: bear | koala: koala | panda: panda
        monkey: monkey, monkey-face | gorilla: gorilla | wolf: wolf | fox: fox | deer: deer | unicorn: unicorn""",
    "animal, bird": """
        turkey: turkey | rooster: rooster | chick: baby-chick, front-facing-baby-chick | penguin: penguin
        eagle: eagle | duck: duck | owl: owl | dove: dove""",
    "animal, sea animal": """
        whale: whale, spouting-whale | dolphin: dolphin | fish: fish, tropical-fish | shark: shark
        octopus: octopus | squid: squid | crab: crab | shrimp: shrimp""",
    "animal, insect": "butterfly: butterfly | caterpillar: bug | ant: ant | bee: honeybee | ladybug: lady-beetle",
    "animal": """
        frog: frog | crocodile: crocodile | turtle: turtle | lizard: lizard | snake: snake | snail: snail
        spider: spider | scorpion: scorpion""",
    "food, fruit": """
        grapes: grapes | watermelon: watermelon | lemon: lemon | banana: banana | pineapple: pineapple
        apple: red-apple, green-apple | pear: pear | cherries: cherries | strawberry: strawberry | kiwi: kiwi-fruit""",
    "food, vegetable": """
        eggplant: eggplant | potato: potato | carrot: carrot | corn: ear-of-corn | chili pepper: hot-pepper
        cucumber: cucumber | tomato: tomato""",
    "food, dessert": """
        ice cream: ice-cream, soft-ice-cream | doughnut: doughnut | cookie: cookie | cake: birthday-cake, shortcake
        chocolate bar: chocolate-bar | candy: candy | lollipop: lollipop""",
    "food": """
        bread: bread, baguette-bread | croissant: croissant | cheese: cheese-wedge | hamburger: hamburger
        french fries: french-fries | pizza: pizza | hot dog: hot-dog | taco: taco | popcorn: popcorn | sushi: sushi""",
    "drink": """
        coffee: hot-beverage | wine: wine-glass | beer: beer-mug | cocktail: cocktail-glass | milk: glass-of-milk
        tea: teacup-without-handle""",
    "vehicle": """
        car: automobile, oncoming-automobile, sport-utility-vehicle | taxi: taxi, oncoming-taxi
        bus: bus, oncoming-bus, minibus | ambulance: ambulance | fire engine: fire-engine
        police car: police-car, oncoming-police-car | truck: delivery-truck, articulated-lorry | tractor: tractor
        motorcycle: motorcycle | scooter: motor-scooter | bicycle: bicycle
        train: train, locomotive, high-speed-train, bullet-train | tram: tram, tram-car
        airplane: airplane, small-airplane | helicopter: helicopter | rocket: rocket
        sailboat: sailboat | speedboat: speedboat, motor-boat | ship: ship, passenger-ship | canoe: canoe""",
    "plant": """
        rose: rose | sunflower: sunflower | tulip: tulip | cactus: cactus | mushroom: mushroom | palm tree: palm-tree
        tree: deciduous-tree | pine tree: evergreen-tree | shamrock: shamrock, four-leaf-clover
        maple leaf: maple-leaf""",
    "building": "house: house, house-with-garden | castle: castle | church: church | factory: factory | tent: tent",
    "piece of clothing": """
        glasses: glasses | t-shirt: t-shirt | jeans: jeans | dress: dress | necktie: necktie
        shoe: mans-shoe, running-shoe | high heel: high-heeled-shoe | hat: top-hat, womans-hat""",
    "musical instrument": "guitar: guitar | violin: violin | trumpet: trumpet | saxophone: saxophone | drum: drum",
    "tool": """
        hammer: hammer | wrench: wrench | knife: kitchen-knife | scissors: scissors | pencil: pencil
        paintbrush: paintbrush | microscope: microscope | telescope: telescope | syringe: syringe""",
    "household item": """
        umbrella: umbrella, closed-umbrella, umbrella-with-rain-drops, umbrella-on-ground | key: key, old-key
        lock: locked, locked-with-key | bell: bell, bellhop-bell | microphone: microphone, studio-microphone
        telephone: telephone, telephone-receiver | mobile phone: mobile-phone, mobile-phone-with-arrow
        computer: laptop, desktop-computer | camera: camera, camera-with-flash | television: television
        candle: candle | light bulb: light-bulb | book: closed-book, open-book, blue-book, notebook
        envelope: envelope, envelope-with-arrow | mailbox: closed-mailbox-with-raised-flag,
        open-mailbox-with-raised-flag, closed-mailbox-with-lowered-flag, open-mailbox-with-lowered-flag
        clock: alarm-clock, mantelpiece-clock, three-oclock, timer-clock | hourglass: hourglass-done, hourglass-not-done
        calendar: calendar, spiral-calendar | speaker: speaker-high-volume, speaker-low-volume
        bag: handbag, shopping-bags, purse, backpack | medal: 1st-place-medal, sports-medal, military-medal
        trophy: trophy | balloon: balloon | gift: wrapped-gift | crown: crown | ring: ring""",
    "toy": """
        soccer ball: soccer-ball | basketball: basketball | football: american-football
        snowman: snowman, snowman-without-snow | ghost: ghost""",
}


@dataclass(frozen=True)
class Concept:
    """One thing of the world: its name, the kinds of thing it is (widest first), the icon names that show it."""

    name: str
    groups: tuple[str, ...]
    slugs: tuple[str, ...]


def _parse() -> tuple[Concept, ...]:
    concepts = []
    for groups, text in _TABLE.items():
        # A line break ends an entry too, unless the line ends in a comma.
        for entry in re.sub(r"(?<!,)\n", "|", text).split("|"):
            if entry.strip():
                name, slugs = entry.split(":")
                kinds = tuple(groups.split(", "))
                concepts.append(Concept(name.strip(), kinds, tuple(s.strip() for s in slugs.split(","))))
    return tuple(concepts)


CONCEPTS: tuple[Concept, ...] = _parse()
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(group for c in CONCEPTS for group in c.groups))
INDEX: dict[str, int] = {c.name: i for i, c in enumerate(CONCEPTS)}


def named(group: str) -> list[str]:
    """Names of the concepts of one group, in the table's order."""
    return [c.name for c in CONCEPTS if group in c.groups]
