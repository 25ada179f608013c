"""The words nearest to learned context vectors (IJCV 2022, table 4), with their distances.

The paper's words for M = 16 on five data sets stand beside ours, and beside both what a distance means: how far a random
vector lies from its nearest word, and a real word from the next. Which words come out depends on the seed. The table does
not name its backbone; RN50 and 16 shots are assumed here.
Cost: 5 x 2 runs, of which two are on ImageNet (1000 class-specific contexts take memory there).

    coopt suite run coop-words --root DATA --only food101
"""

from coopt.suites.papers import COOP, RN50, coop
from coopt.suites.suite import Suite

# None: the paper's "N/A", a word in other than Latin letters.
TABLE_4 = {
    "imagenet": (
        ("potd", 1.7136),
        ("that", 1.4015),
        ("filmed", 1.2275),
        ("fruit", 1.4864),
        (",", 1.5863),
        ("°", 1.7502),
        ("excluded", 1.2355),
        ("cold", 1.4654),
        ("stery", 1.6085),
        ("warri", 1.3055),
        ("marvelcomics", 1.5638),
        (".:", 1.7387),
        ("N/A", None),
        ("lation", 1.5015),
        ("muh", 1.4985),
        (".#", 1.9340),
    ),
    "food101": (
        ("lc", 0.6752),
        ("enjoyed", 0.5305),
        ("beh", 0.5390),
        ("matches", 0.5646),
        ("nytimes", 0.6993),
        ("prou", 0.5905),
        ("lower", 0.5390),
        ("N/A", None),
        ("minute", 0.5672),
        ("~", 0.5529),
        ("well", 0.5659),
        ("ends", 0.6113),
        ("mis", 0.5826),
        ("somethin", 0.6041),
        ("seminar", 0.5274),
        ("N/A", None),
    ),
    "oxford_pets": (
        ("tosc", 2.5952),
        ("judge", 1.2635),
        ("fluffy", 1.6099),
        ("cart", 1.3958),
        ("harlan", 2.2948),
        ("paw", 1.3055),
        ("incase", 1.2215),
        ("bie", 1.5454),
        ("snuggle", 1.1578),
        ("along", 1.8298),
        ("enjoyment", 2.3495),
        ("jt", 1.3726),
        ("improving", 1.3198),
        ("srsly", 1.6759),
        ("asteroid", 1.3395),
        ("N/A", None),
    ),
    "dtd": (
        ("boxed", 0.9433),
        ("seed", 1.0498),
        ("anna", 0.8127),
        ("mountain", 0.9509),
        ("eldest", 0.7111),
        ("pretty", 0.8762),
        ("faces", 0.7872),
        ("honey", 1.8414),
        ("series", 1.6680),
        ("cos", 1.5571),
        ("moon", 1.2775),
        ("lh", 1.0382),
        ("won", 0.9314),
        ("replied", 1.1429),
        ("sent", 1.3173),
        ("piedmont", 1.5198),
    ),
    "ucf101": (
        ("meteorologist", 1.5377),
        ("exe", 0.9807),
        ("parents", 1.0654),
        ("masterful", 0.9528),
        ("fe", 1.3574),
        ("thof", 1.2841),
        ("where", 0.9705),
        ("kristen", 1.1921),
        ("imam", 1.1297),
        ("near", 0.8942),
        ("tummy", 1.4303),
        ("hel", 0.7644),
        ("boop", 1.0491),
        ("N/A", None),
        ("facial", 1.4452),
        ("during", 1.1755),
    ),
}

SUITE = Suite(
    name="coop-words",
    title="Nearest words",
    paper=f"{COOP}, table 4",
    protocol="few-shot",
    models=(RN50,),
    datasets=tuple(TABLE_4),
    entries=(coop("CoOp", n_ctx=16), coop("CoOp (CSC)", n_ctx=16, csc=True)),
    columns="datasets",
    shots=(16,),
    seeds=(1,),
    words=3,
    published_note="Table 4, which does not name backbone and shots: RN50 and 16 shots are assumed.",
    published_words=TABLE_4,
    cost="GPU hours without ImageNet, a day with it",
)
