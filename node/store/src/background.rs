//! Threads whose work may wait.

/// How much such a thread gives way, of 19: beside another that would have all of a processor it still has a quarter. It must
/// not have much less, since in the end writes wait for a flush.
const NICENESS: i32 = 5;

/// Has the calling thread give way to all others of the machine wherever they want the same processor: for what goes on beside
/// the answers to clients and takes long.
pub fn give_way() {
    use rustix::process::{getpriority_process, setpriority_process};
    // Linux keeps this for each thread. A system that does not let it is only less smooth.
    if getpriority_process(None).is_ok_and(|niceness| niceness < NICENESS) {
        let _ = setpriority_process(None, NICENESS);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_thread_gives_way_and_no_other_does() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let before = niceness();
        let (own, other) = std::thread::scope(|scope| {
            let own = scope.spawn(|| {
                super::give_way();
                niceness()
            });
            (own.join().unwrap(), scope.spawn(niceness).join().unwrap())
        });
        assert_eq!((own, other), (super::NICENESS.max(before), before));
    }
}
