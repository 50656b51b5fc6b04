"""English words after which the Java tokenizer treats a full stop specially; found by running it."""

from __future__ import annotations

# Words that keep their full stop; before a single letter ("st.a") a title is not a word of its own.
TITLES = """
    cf dr ft lt mr ms mt ph st vs wm adj adm adv ave cie col cpl det drs ens gen gov hon
    jos maj mfg mme mrs mtg pfc pvt rep rev sen sfc sgt spc ste alex asst atty brig capt
    cmdr dept elec govs insp invt mlle msgr natl pres prof reps sens supt assoc attys
    lieut profs supts treas messrs
""".split()
# Regular expressions.
ABBREVIATIONS = r"""
    ed\.d ph\.d
    al co ct ga jr ky md mo rd rt sq sr va vt ala apr aug bhd cos dak dec esq est etc ext
    feb fla fri inc ind jan jul jun kan ltd mar mon neb nev nov oct plc pte pty sep seq
    sys tel thu tue wed wis wyo ariz assn bldg blvd bros colo conn corp intl kans mich
    minn mont okla penn ppte ppty ptes ptys sept tenn tues univ wisc calif thurs
""".split()
CAPITAL_ABBREVIATIONS = "ark az del ill la mass miss ore pa tex wash".split()
FILES = """
    c h x gz pl ps py bat bmp cgi cpp dll doc exe gif htm jar jpg mov mp3 pdf php png ppt sql tar txt
    wav xml zip docx html jpeg java class
""".split()
NUMBER_ABBREVIATIONS = "art ca fig figs no nos op pp prop".split()

# After an initial ("Vitamin A. The ...") these begin a sentence, and the initial loses its full stop.
SENTENCE_STARTS = """
    A About According Additionally After An As At But Earlier He Her Here However If In It Last Many
    More Mr. Ms. Now Once One Other Our She Since So Some Such That The Their Then There These They
    This We What When While Yet You
""".split()
