"""Every event of the system, one module per family of subjects."""

from bus_schemas.events.banner import (
    BannerCleared,
    BannerDismissed,
    BannerEvent,
    BannerRaised,
    BannerReopened,
    BannerUpdated,
    DismissalRequested,
    DismissalUndone,
)
from bus_schemas.events.config import ConfigDesired, ConfigRequested, CredentialSealed
from bus_schemas.events.custody import (
    OwnerKeyRegistered,
    OwnerKeyRemoved,
    RatchetAdvanced,
    ServerUnlocked,
    UnlockApproved,
    UnlockRefused,
    UnlockShredded,
)
from bus_schemas.events.fingerprint import (
    FingerprintObserved,
    FingerprintRenewed,
    FingerprintRetired,
)
from bus_schemas.events.health import HealthReported, StatusChanged
from bus_schemas.events.platform import (
    ClockTicked,
    EpochClosed,
    EpochOpened,
    MessageParked,
    RulesChanged,
)
from bus_schemas.events.provisioning import (
    ServerDeprovisioned,
    ServerProvisioned,
    ServerRevoked,
)
from bus_schemas.events.reported import (
    CredentialAborted,
    CredentialDrained,
    CredentialInUse,
    CredentialNeedsKey,
    CredentialRejected,
    CredentialRetired,
    CredentialStored,
    CredentialVerified,
    PinsChanged,
    SealingKeyPublished,
)

__all__ = [
    "BannerCleared",
    "BannerDismissed",
    "BannerEvent",
    "BannerRaised",
    "BannerReopened",
    "BannerUpdated",
    "ClockTicked",
    "ConfigDesired",
    "ConfigRequested",
    "CredentialAborted",
    "CredentialDrained",
    "CredentialInUse",
    "CredentialNeedsKey",
    "CredentialRejected",
    "CredentialRetired",
    "CredentialSealed",
    "CredentialStored",
    "CredentialVerified",
    "DismissalRequested",
    "DismissalUndone",
    "EpochClosed",
    "EpochOpened",
    "FingerprintObserved",
    "FingerprintRenewed",
    "FingerprintRetired",
    "HealthReported",
    "MessageParked",
    "OwnerKeyRegistered",
    "OwnerKeyRemoved",
    "PinsChanged",
    "RatchetAdvanced",
    "RulesChanged",
    "SealingKeyPublished",
    "ServerDeprovisioned",
    "ServerProvisioned",
    "ServerRevoked",
    "ServerUnlocked",
    "StatusChanged",
    "UnlockApproved",
    "UnlockRefused",
    "UnlockShredded",
]
