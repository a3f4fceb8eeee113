"""Sentences that each audience reads, by language: what to do at the bedside, what a patient needs to know. Text only; it decides nothing.

Patients get short sentences of short words, and nothing that anybody wrote by hand: no name, no number, no cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from hmsdr.decide.incident import Word
from hmsdr.playbook.people import Language

Reach = Literal["all", "some", "slow"]

SUBJECTS: Mapping[Word, str] = {
    Word.FIRST: "HMS System Incident - Initial Alert",
    Word.UPDATE: "HMS System Incident - Status Update",
    Word.RESOLUTION: "HMS System Incident - RESOLVED",
}

BEDSIDE: Mapping[Word, tuple[str, ...]] = {
    Word.FIRST: (
        "Patients come first: do not wait for the system.",
        "Use the downtime procedure below. Write down the time of everything that you give, measure or order.",
        "Check allergies and medication with the patient, and on the last printed list.",
        "Urgent results come by telephone; read them back.",
    ),
    Word.UPDATE: (
        "Go on with the downtime procedure below until you are told that it is over.",
        "Keep every paper record: it is entered later.",
    ),
    Word.RESOLUTION: (
        "Log in again. Look at each of your patients' records before you rely on them.",
        "Enter what was written on paper, with the time at which it happened.",
        "Something is missing or wrong: do not correct it; call the service desk.",
    ),
}

PATIENTS: Mapping[Language, Mapping[Word, Mapping[Reach, tuple[str, ...]]]] = {
    "en": {
        Word.FIRST: {
            "all": (
                "Our computers do not work right now.",
                "We still care for you. Our staff work on paper.",
                "You may have to wait longer than usual. Please bring a list of your medicines.",
                "In an emergency, call 911 or come to us at once.",
            ),
            "some": (
                "Some of our computers do not work right now.",
                "We still care for you. Some things take longer.",
                "In an emergency, call 911 or come to us at once.",
            ),
            "slow": ("Our computers are slow right now.", "We still care for you. Some things take longer."),
        },
        Word.UPDATE: {
            "all": (
                "Our computers still do not work.",
                "We are working on it. We still care for you, on paper.",
                "In an emergency, call 911 or come to us at once.",
            ),
            "some": (
                "Some of our computers still do not work.",
                "We are working on it. We still care for you.",
                "In an emergency, call 911 or come to us at once.",
            ),
            "slow": ("Our computers are still slow.", "We are working on it. We still care for you."),
        },
        Word.RESOLUTION: {
            "all": ("Our computers work again.", "Thank you for your patience."),
            "some": ("Our computers work again.", "Thank you for your patience."),
            "slow": ("Our computers are fast again.", "Thank you for your patience."),
        },
    },
    "es": {
        Word.FIRST: {
            "all": (
                "En este momento nuestras computadoras no funcionan.",
                "Le seguimos atendiendo. Nuestro personal trabaja en papel.",
                "Es posible que tenga que esperar más. Por favor, traiga una lista de sus medicinas.",
                "Si es una emergencia, llame al 911 o venga de inmediato.",
            ),
            "some": (
                "En este momento algunas de nuestras computadoras no funcionan.",
                "Le seguimos atendiendo. Algunas cosas tardan más.",
                "Si es una emergencia, llame al 911 o venga de inmediato.",
            ),
            "slow": (
                "En este momento nuestras computadoras están lentas.",
                "Le seguimos atendiendo. Algunas cosas tardan más.",
            ),
        },
        Word.UPDATE: {
            "all": (
                "Nuestras computadoras siguen sin funcionar.",
                "Estamos trabajando en ello. Le seguimos atendiendo, en papel.",
                "Si es una emergencia, llame al 911 o venga de inmediato.",
            ),
            "some": (
                "Algunas de nuestras computadoras siguen sin funcionar.",
                "Estamos trabajando en ello. Le seguimos atendiendo.",
                "Si es una emergencia, llame al 911 o venga de inmediato.",
            ),
            "slow": (
                "Nuestras computadoras siguen lentas.",
                "Estamos trabajando en ello. Le seguimos atendiendo.",
            ),
        },
        Word.RESOLUTION: {
            "all": ("Nuestras computadoras funcionan otra vez.", "Gracias por su paciencia."),
            "some": ("Nuestras computadoras funcionan otra vez.", "Gracias por su paciencia."),
            "slow": ("Nuestras computadoras van rápido otra vez.", "Gracias por su paciencia."),
        },
    },
}
PATIENT_SUBJECTS: Mapping[Language, Mapping[Word, str]] = {
    "en": {
        Word.FIRST: "A problem with our computers",
        Word.UPDATE: "The problem with our computers goes on",
        Word.RESOLUTION: "Our computers work again",
    },
    "es": {
        Word.FIRST: "Un problema con nuestras computadoras",
        Word.UPDATE: "El problema con nuestras computadoras sigue",
        Word.RESOLUTION: "Nuestras computadoras funcionan otra vez",
    },
}
