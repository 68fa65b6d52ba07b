"""The lab: a synthetic bilingual language whose conditional entropy is known exactly.

`draws` gives random numbers that are a function of their place, `lexicon` the words and how often
they are used, `sentences` the synchronous grammar, `documents` texts of several sentences,
`entropy` what can be known of a target given its source. The tasks are `lab_text`,
`lab_translation` and `lab_headline`.
"""
