use super::*;

const READ: Command = Command::DMA_READ;

#[test]
fn an_answer_is_fetched_once() {
    let mut requests = Requests::new(4);
    let id = requests.issue(READ).unwrap();
    assert_eq!(requests.take(id), None);
    assert_eq!(requests.answer(id, READ, Ok(&[1, 2])), Answer::Asked);
    assert_eq!(requests.answer(id, READ, Ok(&[3])), Answer::Unasked);
    assert_eq!(requests.take(id), Some(Ok(vec![1, 2])));
    assert_eq!(requests.take(id), None);
    assert_eq!(requests.answer(id, READ, Ok(&[])), Answer::Unasked);
}

#[test]
fn an_answer_names_the_command_that_was_asked() {
    let mut requests = Requests::new(4);
    let id = requests.issue(READ).unwrap();
    assert_eq!(
        requests.answer(id, Command::DMA_WRITE, Ok(&[])),
        Answer::Unasked
    );
    assert_eq!(requests.answer(id + 1, READ, Ok(&[])), Answer::Unasked);
    assert_eq!(requests.answer(id, READ, Err(Errno::EPERM)), Answer::Asked);
    assert_eq!(requests.take(id), Some(Err(Errno::EPERM)));
}

#[test]
fn a_late_answer_is_taken_and_a_command_never_sent_is_forgotten() {
    let mut requests = Requests::new(2);
    let (sent, unsent) = (requests.issue(READ).unwrap(), requests.issue(READ).unwrap());
    assert_eq!(requests.issue(READ), None);
    requests.abandon(unsent, false);
    requests.abandon(sent, true);
    // The place of a command that may still be answered is taken.
    assert!(requests.issue(READ).is_some());
    assert_eq!(requests.issue(READ), None);
    assert_eq!(requests.answer(sent, READ, Ok(&[])), Answer::Asked);
    assert_eq!(requests.answer(sent, READ, Ok(&[])), Answer::Unasked);
    assert!(requests.issue(READ).is_some());
}

#[test]
fn numbers_in_use_and_the_number_of_posted_writes_are_passed_over() {
    let mut requests = Requests::new(3);
    let first = requests.issue(READ).unwrap();
    for _ in 0..200_000 {
        let id = requests.issue(READ).unwrap();
        assert!(id != first && id != POSTED);
        requests.abandon(id, false);
    }
}

#[test]
fn a_posted_write_is_answered_at_most_once() {
    let mut requests = Requests::new(1);
    let write = Command::DMA_WRITE;
    let failed = Err(Errno(19));
    assert_eq!(requests.answer(POSTED, write, failed), Answer::Unasked);
    requests.post();
    assert_eq!(requests.answer(POSTED, READ, failed), Answer::Unasked);
    assert_eq!(requests.answer(POSTED, write, failed), Answer::Posted);
    assert_eq!(requests.answer(POSTED, write, failed), Answer::Unasked);
}
