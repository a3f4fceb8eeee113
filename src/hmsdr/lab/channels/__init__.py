"""Receivers of the lab's messages: what arrived, when, on which channel. Nothing leaves the machine."""
