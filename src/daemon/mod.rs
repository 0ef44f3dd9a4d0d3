//! The control thread: IKE endpoint, timers, VICI server, routes, guard and signals.
