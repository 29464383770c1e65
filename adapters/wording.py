"""What providers' free texts mean where nothing else tells: a filter that said no, an account that is empty.

One list for all whose words are not documented; a provider with words of its own keeps them in its file.  Words alone
never prove that nothing was charged: a reader asks here only about answers that its record names.
"""

import re

_POLICY = re.compile(
    r"polic|safety|prohibited|sensitive|nsfw|moderation|violat|content filter|flagged|inappropriate|违规|敏感|审核",
    re.IGNORECASE,
)
# "No credits were charged" is said of something else than an empty account.
_NO_CREDIT = re.compile(
    r"(insufficient|not enough|out of) (credit|balance|fund|quota)"
    r"|\bno (credit|balance|fund|quota)s?( left| remain| available| any ?more|[.,;!]|$)"
    r"|(credit|balance|fund|quota)s? (is |are |was |were )?(too low|insufficient|not enough|exhausted|exceeded)"
    r"|\btop[ -]?up\b",
    re.IGNORECASE,
)


def is_policy(text: str) -> bool:
    """Whether a failure or a refusal is the filter's."""
    return _POLICY.search(text) is not None


def lacks_credit(text: str) -> bool:
    """Whether a refusal is about credit, balance or quota."""
    return _NO_CREDIT.search(text) is not None
