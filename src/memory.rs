//! What a node at rest gives back of the memory that its start, or a flood of clients, took.

use std::time::Duration;

/// How often that is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// More than any page that the allocator shares between blocks.
const LARGE: usize = 16 << 20;

/// Gives memory back for as long as the node runs.
pub async fn give_back() {
    #[cfg(target_os = "linux")]
    let mut code = code::Code::default();
    loop {
        tokio::time::sleep(EVERY).await;
        // mimalloc gives pages back that have been free for a second when it frees another page, and a node that has little to do
        // frees none. So it frees one, of which nothing was touched.
        drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
        #[cfg(target_os = "linux")]
        code.look();
    }
}

/// The program's own file as it is mapped. The kernel maps 64 KiB around whatever is touched of it: a start, which runs through a
/// bit of everything, leaves most of it in the node's account, though the node at rest needs a tenth.
#[cfg(target_os = "linux")]
mod code {
    #![allow(unsafe_code)]

    use rustix::mm::{Advice, madvise};
    use rustix::time::{ClockId, clock_gettime};
    use std::ffi::c_void;
    use std::time::Duration;

    /// A node that used less of a processor since the last look is at rest.
    const AT_REST: Duration = Duration::from_millis(10);
    /// What a node uses at rest, in a minute or so, is not worth unmapping again: reading the map costs more with each log file.
    const WORKED: Duration = Duration::from_millis(250);

    #[derive(Default)]
    pub struct Code {
        /// Processor time at the last look.
        looked: Duration,
        /// The same when the code was last unmapped.
        unmapped: Option<Duration>,
    }

    impl Code {
        /// Unmaps the code if the node is at rest, and was not since the last time. What is needed is mapped again from the page
        /// cache, where it stays.
        pub fn look(&mut self) {
            let used = clock_gettime(ClockId::ProcessCPUTime);
            let used = Duration::try_from(used).unwrap_or_default();
            let before = std::mem::replace(&mut self.looked, used);
            let worked = self.unmapped.is_none_or(|then| used - then >= WORKED);
            if used - before > AT_REST || !worked {
                return;
            }
            self.unmapped = Some(used);
            // Nothing depends on it: where the file or the call is missing, all stays mapped.
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
            for (from, to) in of_file(&maps) {
                let place = std::ptr::with_exposed_provenance_mut::<c_void>(from);
                // SAFETY: the range is a mapping of a file that nobody can write to and of which no page differs from the file
                // (`of_file`): whoever touches it next finds the same bytes.
                let _ = unsafe { madvise(place, to - from, Advice::LinuxDontNeed) };
            }
        }
    }

    /// The ranges of `/proc/self/smaps` that are nothing but the program's file: no page of them was written to.
    fn of_file(maps: &str) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let mut range = None;
        for line in maps.lines() {
            let mut words = line.split_ascii_whitespace();
            let first = words.next().unwrap_or_default();
            if let Some((from, to)) = first.split_once('-') {
                let kind = words.next().unwrap_or_default();
                let path = words.nth(3).unwrap_or_default();
                let ends = usize::from_str_radix(from, 16)
                    .ok()
                    .zip(usize::from_str_radix(to, 16).ok());
                range = ends.filter(|_| matches!(kind, "r-xp" | "r--p") && path.starts_with('/'));
            } else if first == "Anonymous:" && words.next() == Some("0") {
                found.extend(range.take());
            }
        }
        found
    }

    #[cfg(test)]
    mod tests {
        use super::of_file;

        const MAPS: &str = "\
7f0000000000-7f0000300000 r--p 00000000 fe:00 7    /usr/bin/rmqctl
Rss:                2900 kB
Anonymous:             0 kB
7f0000300000-7f0000f00000 r-xp 00300000 fe:00 7    /usr/bin/rmqctl (deleted)
Anonymous:             0 kB
7f0000f00000-7f0000f90000 r--p 00f00000 fe:00 7    /usr/bin/rmqctl
Anonymous:           580 kB
7f0000f90000-7f0000fa0000 rw-p 00f90000 fe:00 7    /usr/bin/rmqctl
Anonymous:             0 kB
7f1000000000-7f1040000000 r--s 00000000 fe:00 9    /store/commitlog/00000000000000000000
Anonymous:             0 kB
7f2000000000-7f2000010000 r-xp 00000000 00:00 0    [vdso]
Anonymous:             0 kB
7f3000000000-7f3000010000 r--p 00000000 00:00 0
Anonymous:             0 kB
    ";

        #[test]
        fn only_what_is_as_in_the_file_and_cannot_be_written_is_unmapped() {
            assert_eq!(
                of_file(MAPS),
                [
                    (0x7f00_0000_0000, 0x7f00_0030_0000),
                    (0x7f00_0030_0000, 0x7f00_00f0_0000)
                ]
            );
        }

        #[test]
        fn this_program_has_such_ranges() {
            let maps = std::fs::read_to_string("/proc/self/smaps").expect("this is Linux");
            assert!(!of_file(&maps).is_empty());
        }
    }
}
