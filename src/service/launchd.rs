//! Takes the socket that launchd has made for us.
//!
//! launchd hands sockets out by their name in the agent's property list, and
//! only to who asks for them with its own call. `LOVABLE_LAUNCHD_SOCKET` in the
//! same list says that name, so that nothing is asked of launchd by a daemon
//! that a person started in a terminal.

#![expect(unsafe_code, reason = "the call is one of the C library's, and hands over memory and descriptors")]

use std::{
    ffi::{CString, c_char, c_int, c_void},
    io,
    os::fd::{FromRawFd, OwnedFd},
    ptr, slice,
};

/// The variable that names the sockets.
pub(super) const VARIABLE: &str = "LOVABLE_LAUNCHD_SOCKET";

unsafe extern "C" {
    fn launch_activate_socket(name: *const c_char, fds: *mut *mut c_int, count: *mut usize) -> c_int;
    fn free(memory: *mut c_void);
}

/// The sockets of this name; each can be taken once.
pub(super) fn sockets(name: &str) -> io::Result<Vec<OwnedFd>> {
    let name = CString::new(name)?;
    let mut fds: *mut c_int = ptr::null_mut();
    let mut count: usize = 0;
    // SAFETY: all three point to what lives until the call returns, which is all it needs.
    let failed = unsafe { launch_activate_socket(name.as_ptr(), &raw mut fds, &raw mut count) };
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed));
    }
    if fds.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: on success `fds` is an array of `count` open descriptors which are ours now, and
    // so is its memory, from malloc, which nobody uses after this.
    unsafe {
        let taken = slice::from_raw_parts(fds, count).iter().map(|it| OwnedFd::from_raw_fd(*it)).collect();
        free(fds.cast());
        Ok(taken)
    }
}

#[cfg(test)]
#[cfg(not(target_os = "macos"))]
mod tests {
    use std::{
        ffi::CStr,
        os::{fd::IntoRawFd, unix::net::UnixListener},
    };

    use super::*;

    unsafe extern "C" {
        fn malloc(size: usize) -> *mut c_void;
    }

    /// launchd's part elsewhere: one listener under one name, as its manual describes the call.
    #[unsafe(no_mangle)]
    extern "C" fn launch_activate_socket(
        name: *const c_char,
        fds: *mut *mut c_int,
        count: *mut usize,
    ) -> c_int {
        // SAFETY: called above only, with a string and two places to write to.
        unsafe {
            if CStr::from_ptr(name).to_bytes() != b"Listeners" {
                return 2;
            }
            let path = std::env::temp_dir().join(format!("lovable-launchd-{}", std::process::id()));
            let listener = UnixListener::bind(&path).unwrap();
            std::fs::remove_file(path).unwrap();
            *fds = malloc(size_of::<c_int>()).cast();
            **fds = listener.into_raw_fd();
            *count = 1;
        }
        0
    }

    #[test]
    fn the_descriptors_are_ours_and_an_unknown_name_is_an_error() {
        let taken = sockets("Listeners").unwrap();
        assert_eq!(taken.len(), 1);
        let listener = UnixListener::from(taken.into_iter().next().unwrap());
        assert!(listener.local_addr().is_ok());
        assert_eq!(sockets("Others").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(sockets("a\0b").is_err());
    }
}
