"""The clinics: users of the hospital, who resolve its public name, write and read, and remember what they were told."""
