"""The built-in actions. Each is thin: it asks a driver, compares with its goal, and says what was seen."""

from __future__ import annotations

from typing import Any

from hmsdr.runbook.action import Action
from hmsdr.runbook.actions.authority import FreeAuthority, GrantAuthority
from hmsdr.runbook.actions.cache import PromoteRedis, RedisReady, ReplicateRedis
from hmsdr.runbook.actions.database import (
    Checkpoint,
    DatabaseReady,
    PromotePostgres,
    RegionLost,
    VerifyDatabase,
)
from hmsdr.runbook.actions.following import FollowPrimary
from hmsdr.runbook.actions.kubernetes import (
    DeploymentsReady,
    PointApplications,
    RoutesReady,
    ScaleDeployment,
)
from hmsdr.runbook.actions.monitoring import AlertsConfigured, RegionWatched
from hmsdr.runbook.actions.network import AuthorityHeld, EndDeadSessions, FenceStray
from hmsdr.runbook.actions.notification import NotifyTeam
from hmsdr.runbook.actions.reaching import NameLeads, SidesSeeEachOther
from hmsdr.runbook.actions.recovering import RecoverDatabase, SlotReady
from hmsdr.runbook.actions.shifting import TrafficBaseline, WatchTraffic, WeighTraffic
from hmsdr.runbook.actions.traffic import RecordsReady, ServiceAnswers, ShiftTraffic

BUILT_IN: tuple[Action[Any], ...] = (
    RegionLost(),
    DatabaseReady(),
    Checkpoint(),
    FreeAuthority(),
    GrantAuthority(),
    PromotePostgres(),
    FollowPrimary(),
    SlotReady(),
    RecoverDatabase(),
    VerifyDatabase(),
    RedisReady(),
    PromoteRedis(),
    ReplicateRedis(),
    PointApplications(),
    ScaleDeployment(),
    DeploymentsReady(),
    RoutesReady(),
    ShiftTraffic(),
    RecordsReady(),
    ServiceAnswers(),
    TrafficBaseline(),
    WeighTraffic(),
    WatchTraffic(),
    RegionWatched(),
    AlertsConfigured(),
    NotifyTeam(),
    AuthorityHeld(),
    FenceStray(),
    EndDeadSessions(),
    NameLeads(),
    SidesSeeEachOther(),
)
