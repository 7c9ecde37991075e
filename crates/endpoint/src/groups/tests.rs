use super::*;

fn group(pages: u32, deadline: u64) -> Outstanding {
    Outstanding {
        pasid: Pasid::new(1),
        pages,
        sent: Duration::ZERO,
        deadline: Duration::from_secs(deadline),
    }
}

#[test]
fn the_allocation_bounds_the_pages_of_all_groups_together() {
    let mut groups = Groups::new(8, true);
    assert_eq!(groups.open(group(5, 1)), Some(GroupIndex(0)));
    assert_eq!(groups.open(group(4, 1)), None);
    assert_eq!(groups.open(group(3, 1)), Some(GroupIndex(1)));
    assert_eq!(groups.credits(), 0);
    assert!(groups.answer(Pasid::new(1), GroupIndex(0)).is_some());
    assert_eq!(groups.credits(), 5);
}

#[test]
fn an_answer_with_another_pasid_answers_nothing() {
    let mut groups = Groups::new(8, true);
    groups.open(group(1, 1));
    assert_eq!(groups.answer(Pasid::new(2), GroupIndex(0)), None);
    assert_eq!(groups.answer(None, GroupIndex(0)), None);
    assert_eq!(groups.answer(Pasid::new(1), GroupIndex(1)), None);
    assert!(groups.answer(Pasid::new(1), GroupIndex(0)).is_some());
}

#[test]
fn an_index_given_up_is_not_used_again_before_its_late_answer() {
    let mut groups = Groups::new(1000, true);
    for _ in 0..512 {
        groups.open(group(1, 1));
    }
    assert_eq!(groups.open(group(1, 9)), None);
    while groups.expire(Duration::from_secs(1)).is_some() {}
    assert!(groups.exhausted());
    assert!(groups.late(Pasid::new(1), GroupIndex(77)));
    assert!(!groups.late(Pasid::new(1), GroupIndex(77)));
    assert_eq!(groups.open(group(1, 9)), Some(GroupIndex(77)));
}

#[test]
fn an_answer_from_before_a_reset_of_the_interface_answers_no_group_after_it() {
    let mut groups = Groups::new(8, true);
    groups.open(group(8, 1));
    assert_eq!(groups.drain(), [(GroupIndex(0), group(8, 1))]);
    assert_eq!(groups.credits(), 8);
    assert_eq!(groups.open(group(1, 1)), Some(GroupIndex(1)));
    assert_eq!(groups.answer(Pasid::new(1), GroupIndex(0)), None);
    assert!(!groups.late(Pasid::new(1), GroupIndex(0)));
}

#[test]
fn without_a_pasid_in_its_answers_a_function_goes_by_the_index_alone() {
    let mut groups = Groups::new(8, false);
    groups.open(group(1, 1));
    groups.open(group(1, 2));
    assert!(groups.answer(None, GroupIndex(0)).is_some());
    assert_eq!(groups.answer(None, GroupIndex(0)), None);
    assert!(groups.expire(Duration::from_secs(2)).is_some());
    assert!(groups.late(None, GroupIndex(1)));
    assert!(!groups.late(None, GroupIndex(1)));
}
