//! What a kernel would say that mixes its buffers up, and what the pool makes of it.

use super::*;

/// A pool that no kernel knows of.
fn pool(cut: Cut) -> Provided {
    let mut pool = Provided::map(cut).unwrap();
    pool.replenish();
    pool
}

fn told(cut: Cut, completions: &[(u16, u32, bool)]) {
    let mut pool = pool(cut);
    for &(id, length, goes_on) in completions {
        // SAFETY: nobody else writes there, and mapped memory is never uninitialised.
        let mut slice = unsafe { pool.take(id, length, goes_on) };
        slice.as_mut_slice().fill(1);
    }
}

#[test]
fn what_can_be_is_believed() {
    told(Cut::INCREMENTAL, &[(0, 1 << 19, true), (1, 5, true), (0, (1 << 19) - 1, true), (0, 1, false)]);
    told(Cut::WHOLE, &[(3, 16 << 10, false), (0, 1, false)]);
    told(Cut::GLANCES, &[(15, 4 << 10, false), (0, 1, false)]);
}

#[test]
#[should_panic(expected = "out of order")]
fn bytes_past_the_end_of_a_shared_buffer_are_not_believed() {
    told(Cut::INCREMENTAL, &[(0, 1 << 19, true), (0, (1 << 19) + 1, true)]);
}

#[test]
#[should_panic(expected = "out of order")]
fn bytes_past_the_end_of_a_whole_buffer_are_not_believed() {
    told(Cut::WHOLE, &[(0, (16 << 10) + 1, false)]);
}

#[test]
#[should_panic(expected = "out of order")]
fn the_largest_length_does_not_wrap() {
    told(Cut::INCREMENTAL, &[(0, 1, true), (0, i32::MAX as u32, true)]);
}

#[test]
#[should_panic(expected = "out of order")]
fn a_completion_behind_the_last_one_of_its_buffer_is_not_believed() {
    told(Cut::INCREMENTAL, &[(0, 10, false), (0, 10, true)]);
}

#[test]
#[should_panic(expected = "out of order")]
fn a_buffer_that_the_kernel_was_not_given_is_not_believed() {
    told(Cut::WHOLE, &[(511, 1, false)]);
}

#[test]
#[should_panic(expected = "index out of bounds")]
fn a_buffer_that_does_not_exist_is_not_believed() {
    told(Cut::WHOLE, &[(512, 1, false)]);
}

#[test]
#[should_panic(expected = "received nothing")]
fn a_shared_buffer_that_was_picked_for_nothing_is_a_bug() {
    pool(Cut::INCREMENTAL).take_back(0);
}

#[test]
fn a_whole_buffer_that_was_picked_for_nothing_comes_back() {
    let mut pool = pool(Cut::WHOLE);
    let before = pool.buffers();
    pool.take_back(0);
    let after = pool.buffers();
    assert_eq!((after.kernel, after.free), (before.kernel - 1, before.free + 1));
}

#[test]
fn a_buffer_comes_back_when_the_kernel_and_all_slices_have_let_it_go() {
    let mut pool = pool(Cut::INCREMENTAL);
    let free = pool.buffers().free;
    // SAFETY: as above.
    let (first, mut second) = unsafe { (pool.take(0, 10, true), pool.take(0, 10, false)) };
    assert_eq!(second.as_slice().as_ptr() as usize - first.as_slice().as_ptr() as usize, 10);
    let third = second.split_off(4);
    drop((first, second));
    assert_eq!(pool.buffers().free, free);
    drop(third);
    assert_eq!(pool.buffers().free, free + 1);
}
