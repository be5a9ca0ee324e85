"""The names of SMAX's scenarios, and who fights whom in each."""

from __future__ import annotations

SCENARIOS: dict[str, str] = {
    "3m": "3 marines against 3",
    "8m": "8 marines against 8",
    "25m": "25 marines against 25",
    "2s3z": "2 stalkers and 3 zealots against the same",
    "3s5z": "3 stalkers and 5 zealots against the same",
    "5m_vs_6m": "5 marines against 6",
    "8m_vs_9m": "8 marines against 9",
    "10m_vs_11m": "10 marines against 11",
    "27m_vs_30m": "27 marines against 30",
    "3s_vs_5z": "3 stalkers against 5 zealots",
    "3s5z_vs_3s6z": "3 stalkers and 5 zealots against 3 and 6",
    "6h_vs_8z": "6 hydralisks against 8 zealots",
    "6z_vs_24zg": "6 zealots against 24 zerglings: corridor's line-up, without the choke point that makes it",
    "2M7m_vs_3M8m": "2 marauders and 7 marines against 3 and 8: not MMM2, which has a medivac on either side",
    "smacv2_5_units": "5 units against 5, kinds and places drawn for every episode",
    "smacv2_10_units": "10 units against 10, kinds and places drawn for every episode",
    "smacv2_20_units": "20 units against 20, kinds and places drawn for every episode",
}
