"""The phrases of which the miniatures of the text tasks are put together, written for this project (CC0 1.0)."""

from __future__ import annotations

from dataclasses import dataclass

# ── headline ─────────────────────────────────────────────────────────────────────────────────────────────────

PLACES = (
    "Ashby", "Brindle", "Calder", "Denholm", "Eastwick", "Fenton", "Garrow", "Hexley", "Ingleby", "Kestle", "Larkhill",
    "Marsden", "Norwell", "Oakham", "Pendry", "Quarndon", "Redmire", "Selby", "Thornton", "Upwood", "Velden", "Wexham",
)  # fmt: skip

EVENTS = (
    ("The old bridge in {place} was closed to all traffic", "bridge closed"),
    ("The swimming pool in {place} was shut to visitors", "pool shut"),
    ("The town library in {place} opened its doors again", "library reopens"),
    ("The weekly market in {place} was moved to the car park by the station", "market moved"),
    ("The night bus between {place} and the coast was cancelled", "night bus cancelled"),
    ("The primary school in {place} sent all pupils home", "school sends pupils home"),
    ("The annual music festival in {place} was put off by a week", "festival put off"),
    ("The main road through {place} was blocked for several hours", "main road blocked"),
    ("The museum of clocks in {place} lowered its prices", "museum lowers prices"),
    ("The ferry from {place} to the islands stopped running", "ferry stopped"),
    ("The new cinema in {place} welcomed its first guests", "cinema opens"),
    ("The volunteer fire brigade of {place} bought a second engine", "fire brigade buys engine"),
    ("The railway station in {place} lost its ticket office", "station loses ticket office"),
    ("The village council of {place} voted for a new playground", "council votes for playground"),
    ("The bakery on the square in {place} went back to wood ovens", "bakery returns to wood ovens"),
    ("The football ground in {place} was fitted with new lights", "football ground gets lights"),
    ("The only hotel in {place} changed its owner", "hotel changes owner"),
    ("The botanical garden in {place} extended its opening hours", "garden opens longer"),
    ("The water supply in {place} was cut off until the evening", "water cut off"),
    ("The town hall in {place} was evacuated", "town hall evacuated"),
    ("The local radio station in {place} went silent", "radio station silent"),
    ("The harbour in {place} was dredged for the first time in ten years", "harbour dredged"),
)

CAUSES = (
    ("after heavy rain had washed away part of the bank", "after heavy rain"),
    ("after a gas leak was found in a cellar", "after gas leak"),
    ("because too few workers could be found", "for lack of workers"),
    ("after a gift of money from a former resident", "after gift"),
    ("because of strong winds from the north", "in strong winds"),
    ("after a fire in the roof", "after roof fire"),
    ("following a petition that was signed by two thousand people", "after petition"),
    ("because engineers had seen cracks in a wall", "over cracks in wall"),
    ("after months of dispute about costs", "after dispute about costs"),
    ("because a swarm of bees had settled at the entrance", "over swarm of bees"),
    ("after a power cut that lasted all night", "after power cut"),
    ("thanks to a grant from the region", "thanks to grant"),
    ("after a lorry had lost its load of apples", "after lorry loses apples"),
    ("because snow had fallen earlier than expected", "after early snow"),
    ("after a poll among the visitors", "after visitor poll"),
    ("because a wartime shell was dug up nearby", "over wartime shell"),
)

SPEAKERS = (
    "The mayor", "A spokeswoman", "The manager", "A member of the council", "The police", "The head of the works",
    "An engineer", "A neighbour",
)  # fmt: skip

NOTES = (
    "nobody had been hurt", "more would be known by the end of the week", "the town was grateful to all helpers",
    "people should follow the signs", "the costs were still being counted", "such a thing had not happened in years",
    "a meeting would be held in the evening", "plans for the summer would not change", "everybody had stayed calm",
    "refunds would be paid in full", "it was good news for families", "further steps were being considered",
)  # fmt: skip

# ── describe ─────────────────────────────────────────────────────────────────────────────────────────────────

NAMES = (
    "Blue Lantern", "Corner House", "Tilly's", "The Anchor", "Old Mill", "Fig and Fern", "Number Nine", "The Loft",
    "Marlow's", "Green Door", "Salt Room", "The Weaver", "Plum Tree", "North Star", "Hannah's", "The Depot",
    "Copper Pot", "White Gate", "The Atlas", "Bell and Book",
)  # fmt: skip

KINDS = (
    "café", "bookshop", "guest house", "restaurant", "bakery", "tea room", "gallery", "hostel", "wine bar", "toy shop",
    "ice cream parlour", "music club",
)  # fmt: skip

QUARTERS = (
    ("harbour", "at the harbour"), ("old town", "in the old town"), ("station", "near the station"),
    ("river", "by the river"), ("market square", "on the market square"), ("university", "beside the university"),
    ("city park", "at the edge of the city park"), ("hill", "on the hill"), ("canal", "along the canal"),
    ("theatre", "opposite the theatre"), ("beach", "close to the beach"), ("suburb", "out in the suburb"),
)  # fmt: skip

FEATURES = (
    ("terrace", "a terrace"), ("low prices", "low prices"), ("live music", "live music"), ("late hours", "late hours"),
    ("a garden", "a garden"), ("fast service", "fast service"), ("sea view", "a view of the sea"),
    ("free internet", "free internet"), ("open fire", "an open fire"), ("vegan menu", "a vegan menu"),
    ("play corner", "a corner to play in"), ("step-free entry", "an entrance without steps"),
)  # fmt: skip

VISITORS = (
    ("families", "families"), ("students", "students"), ("couples", "couples"), ("groups", "groups"),
    ("dog owners", "people with dogs"), ("travellers", "travellers"), ("early birds", "early birds"),
    ("night owls", "night owls"), ("cyclists", "cyclists"), ("solo guests", "guests on their own"),
)  # fmt: skip

# ── reply ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Service:
    """A kind of conversation: somebody wants a thing, is asked a question, and gives a detail."""

    openings: tuple[str, ...]
    things: tuple[str, ...]
    question: str
    details: tuple[str, ...]
    recap: str
    end: str


SERVICES = (
    Service(
        ("I would like to book a {thing} for {day}.", "Do you have a {thing} free on {day}?"),
        (
            "table",
            "table outside",
            "table by the window",
            "quiet table",
            "table near the stove",
            "large table",
            "table for lunch",
        ),
        "How many people will you be?",
        ("two", "three", "four", "five", "six", "eight"),
        "A {thing} for {detail} on {day}.",
        "You are booked.",
    ),
    Service(
        ("Could you repair my {thing} by {day}?", "My {thing} is broken and I need it on {day}."),
        ("bicycle", "watch", "toaster", "umbrella", "radio", "coffee machine", "hair dryer", "camera", "heater"),
        "What is wrong with it?",
        ("it makes a strange noise", "it does not start", "a part fell off", "it stops after a minute", "it got wet"),
        "So your {thing} needs help because {detail}.",
        "It will be ready in time.",
    ),
    Service(
        ("I need a {thing} to the airport on {day}.", "Can I order a {thing} for {day}?"),
        ("taxi", "minibus", "car with a child seat", "large taxi", "small bus", "car with a driver", "van"),
        "At what time should we come?",
        ("at six", "at half past seven", "at nine", "at noon", "at a quarter to four", "after lunch"),
        "A {thing} on {day} {detail}.",
        "The driver will ring the bell.",
    ),
    Service(
        ("I want to return this {thing} that I bought on {day}.", "This {thing} from {day} is not what I wanted."),
        ("jacket", "lamp", "pair of shoes", "kettle", "board game", "backpack", "pillow", "clock"),
        "May I ask why?",
        ("it is too small", "it is too big", "the colour is wrong", "there were two of them", "it arrived damaged"),
        "I see, the {thing} goes back since {detail}.",
        "Your money is on its way.",
    ),
    Service(
        ("I am looking for a {thing} as a present for {day}.", "It is a birthday on {day}. I need a {thing}."),
        ("book", "plant", "puzzle", "scarf", "cookbook", "box of tea", "mug", "kite"),
        "Who is it for?",
        ("my sister", "my neighbour", "a colleague", "my grandfather", "a friend from work", "my teacher"),
        "A {thing} for {detail} by {day}.",
        "Let me show you three.",
    ),
    Service(
        ("Can I see the {thing} on {day}?", "I need to speak to the {thing} on {day}."),
        ("doctor", "dentist", "vet", "eye specialist", "lawyer", "nurse", "headmaster", "tax adviser"),
        "What is it about?",
        ("a check-up", "a second opinion", "a sore tooth", "an old problem", "a form to sign", "some test results"),
        "The {thing} can see you on {day} about {detail}.",
        "Please come ten minutes early.",
    ),
    Service(
        ("I left my {thing} on your train on {day}.", "Has anybody found a {thing} since {day}?"),
        ("hat", "suitcase", "phone", "violin", "red folder", "walking stick", "laptop", "scarf"),
        "Where did you last see it?",
        ("under the seat", "on the rack", "in the dining car", "next to the door", "on the platform", "in coach four"),
        "One {thing}, lost on {day} {detail}.",
        "We will call you tonight.",
    ),
    Service(
        ("Do you still give the {thing} class on {day}?", "I would like to join the {thing} class on {day}."),
        ("pottery", "Italian", "chess", "swimming", "sewing", "guitar", "drawing", "tango"),
        "How much have you done before?",
        ("nothing at all", "a little at school", "two years", "one summer course", "quite a lot", "only with friends"),
        "The {thing} class on {day}, and before that {detail}.",
        "You will fit in well.",
    ),
)

# ── plain ────────────────────────────────────────────────────────────────────────────────────────────────────

OPENINGS = (
    ("Patrons are kindly requested to",), ("All persons on the premises are obliged to",),
    ("It is incumbent upon residents to",), ("Visitors are hereby instructed to",),
    ("Members shall be required to",), ("The management respectfully asks that guests",),
    ("Employees are reminded of their duty to",), ("Participants are expected to",),
)  # fmt: skip

ACTS = (
    ("extinguish all sources of illumination", "turn off the lights"),
    ("refrain from the consumption of food", "do not eat"),
    ("deposit refuse in the receptacles provided", "put rubbish in the bins"),
    ("abstain from smoking tobacco products", "do not smoke"),
    ("present a valid form of identification", "show your ID"),
    ("secure all points of egress", "lock the doors"),
    ("remit the outstanding balance", "pay what you owe"),
    ("retain the receipt for inspection", "keep the receipt"),
    ("maintain silence at all times", "be quiet"),
    ("notify the office in writing", "write to the office"),
    ("relinquish their seats to elderly passengers", "give your seat to old people"),
    ("ensure that animals are restrained by a leash", "keep dogs on a lead"),
    ("complete the enclosed documentation", "fill in the form"),
    ("proceed to the nearest assembly point", "go to the meeting place"),
    ("return borrowed items in an undamaged state", "bring things back whole"),
    ("disable all portable electronic devices", "turn off your phones"),
    ("make use of the staircase in lieu of the elevator", "take the stairs, not the lift"),
    ("sanitise their hands thoroughly", "wash your hands well"),
    ("submit any complaint to the supervisor", "tell the boss if you are unhappy"),
    ("exercise caution on the wet flooring", "be careful on the wet floor"),
    ("remove all footwear", "take off your shoes"),
    ("obtain prior authorisation from the secretary", "ask the secretary first"),
    ("desist from photographing the exhibits", "take no photos"),
    ("store all personal belongings in the lockers", "put your things in the lockers"),
)

CONDITIONS = (
    ("prior to vacating the building", "before you leave"),
    ("upon arrival at the reception", "when you arrive"),
    ("in the event of a fire", "if there is a fire"),
    ("for the duration of the performance", "during the show"),
    ("subsequent to the conclusion of the meeting", "after the meeting"),
    ("within fourteen days of receipt", "within two weeks"),
    ("between the hours of ten and six", "from ten to six"),
    ("should an emergency arise", "in an emergency"),
    ("in the vicinity of the entrance", "near the entrance"),
    ("on the occasion of each visit", "every time you come"),
    ("until further notice is issued", "until we tell you"),
    ("in accordance with the regulations", "as the rules say"),
    ("throughout the period of construction", "while we build"),
    ("while occupying the reading room", "in the reading room"),
    ("for reasons of hygiene", "to keep things clean"),
    ("out of consideration for other guests", "for the sake of others"),
    ("at the earliest possible opportunity", "as soon as you can"),
    ("in the absence of a member of staff", "when nobody of us is here"),
)
