//! IKE without I/O: datagrams, timers and commands in; datagrams, SA updates and events out.
