"""Words of the fake model's vocabulary that look like a real one's."""

from __future__ import annotations

_COMMON = """
the of and to in that is was for it with as his on be at by had not are but from or have they which one you were her
all she there would their we him been has when who will more no if out so said what up its about into than them can
only other new some could time these two may then do first any my now such like our over man me even most made after
also did many before must through back years where much your way well down should because each just those people how
too little state good very make world still own see men work long get here between both life being under never day
same another know while last might us great old year off come since against go came right used take three states
himself few house use during without again place around however home small found thought went say part once general
high upon school every does got united left number course war until always away something fact though water less
public put think almost hand enough far took head yet government system better set told nothing night end why called
eyes find going look asked later knew point next program city business give group toward young days let room present
side given several order national second possible rather face among form often things looked early white case large
big need four within felt along children saw best church ever least power development light thing seemed family
interest want members mind country area others done turned although open god service problem certain kind different
began thus door help means sense whole matter bad terrible wonderful boring funny sad happy awful brilliant poor
excellent yes maybe wrong true false positive negative neutral sports science politics music art film book company
village river animal plant technology health weather money movie actor story question answer reason example similar
equal related unrelated important simple difficult strange clear
""".split()  # noqa: SIM905 - a list of strings would be pages long
_PIECES = (
    *("ing", "ed", "s", "ly", "er", "est", "tion", "ment", "ness", "able", "un", "re", "pre", "dis"),
    *("'", ".", ",", "!", "?", ":", ";", "-", "(", ")", "/", "0", "1", "2", "3", "7", "10", "19", "100"),
)
_SIGNS = (".", ",", "!", "?", ":", "0", "1", "2", "7", "10", "2019", "The", "A", "It", "No", "Yes")

WORDS = tuple(
    dict.fromkeys(
        [
            *(f" {word}" for word in _COMMON),
            *(f" {word.capitalize()}" for word in _COMMON[:60]),
            *(f" {sign}" for sign in _SIGNS),
            *_COMMON[:120],
            *_PIECES,
        ]
    )
)
"""Most words of a tokenizer like RoBERTa's begin with a space; some are parts of a word, and some are signs."""
