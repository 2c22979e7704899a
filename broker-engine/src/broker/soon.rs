//! What an append brings about and must not hold it up: answers to those who waited for the messages.
//!
//! A thread of connections gives them itself, right after its append: they leave with the acknowledgements, and no other thread has
//! to be woken, which costs more than an answer does.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use tokio::runtime::Handle;

/// More answers than this are given by the runtime: a thread's other connections do not wait for them.
const FEW: usize = 32;

type Work = Box<dyn FnOnce()>;

thread_local! {
    /// What is to be done when this thread's append is; `None` outside of [`after`].
    static LEFT: RefCell<Option<Vec<Work>>> = const { RefCell::new(None) };
}

/// Runs `append`, and then what it left to [`soon`]. A panic of `append` or of one answer, which the log tells of, does not cost
/// the others theirs.
pub(super) fn after(append: impl FnOnce()) {
    LEFT.set(Some(Vec::new()));
    let appended = catch_unwind(AssertUnwindSafe(append));
    for work in LEFT.take().unwrap_or_default() {
        let _ = catch_unwind(AssertUnwindSafe(work));
    }
    if let Err(panic) = appended {
        resume_unwind(panic);
    }
}

/// Gives `answers` answers once the append under way on this thread is over, or on the runtime.
pub(super) fn soon(runtime: &Handle, answers: usize, work: impl FnOnce() + Send + 'static) {
    let mut work = Some(work);
    if answers <= FEW {
        LEFT.with_borrow_mut(|left| {
            if let Some(left) = left
                && let Some(work) = work.take()
            {
                left.push(Box::new(work));
            }
        });
    }
    if let Some(work) = work {
        runtime.spawn(async move { work() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread::{ThreadId, current};

    /// The threads that did what was left by `append`, by their number of answers.
    fn who(answers: &[usize], within: bool) -> Vec<ThreadId> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        let (tell, told) = channel();
        let append = || {
            for answers in answers {
                let tell = tell.clone();
                soon(runtime.handle(), *answers, move || {
                    tell.send(current().id()).expect("somebody listens");
                });
            }
            assert!(!within || answers[0] > FEW || told.try_recv().is_err());
        };
        if within {
            after(append);
        } else {
            append();
        }
        answers
            .iter()
            .map(|_| told.recv().expect("it was done"))
            .collect()
    }

    #[test]
    fn few_answers_are_given_by_the_thread_that_appended_and_after_it() {
        assert_eq!(who(&[1, FEW], true), [current().id(); 2]);
    }

    #[test]
    fn a_panic_takes_no_other_answer_along() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let (tell, told) = channel();
        let appended = catch_unwind(AssertUnwindSafe(|| {
            after(|| {
                soon(runtime.handle(), 1, || panic!("an answer"));
                soon(runtime.handle(), 1, move || {
                    tell.send(()).expect("somebody listens");
                });
                panic!("the append");
            });
        }));
        assert!(appended.is_err());
        assert_eq!(told.try_recv(), Ok(()));
    }

    #[test]
    fn many_answers_and_those_of_other_threads_are_left_to_the_runtime() {
        assert_ne!(who(&[FEW + 1], true), [current().id()]);
        assert_ne!(who(&[1], false), [current().id()]);
    }
}
