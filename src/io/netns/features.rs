//! Offloads of a link, by the names that `ethtool -k` prints (SIOCETHTOOL).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use rustix::net;

/// Switches one feature of a link in the calling thread's namespace. `NotFound` if this kernel does
/// not know the feature, `Unsupported` if it stays as it was.
pub(super) fn set(link: &str, feature: &str, on: bool) -> io::Result<()> {
    let socket = net::socket(net::AddressFamily::INET, net::SocketType::DGRAM, None)?;
    let socket = std::os::fd::AsFd::as_fd(&socket);
    let names = names(socket, link)?;
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("no feature {feature}"));
    let bit = names
        .iter()
        .position(|name| name == feature)
        .ok_or_else(unknown)?;

    // struct ethtool_sfeatures { u32 cmd; u32 size; struct { u32 valid; u32 requested; } [size]; }
    let words = names.len().div_ceil(32);
    let mut request = vec![0_u32; 2 + 2 * words];
    let mask = 1_u32 << (bit % 32);
    put(&mut request, 0, ETHTOOL_SFEATURES);
    put(
        &mut request,
        1,
        u32::try_from(words).map_err(io::Error::other)?,
    );
    put(&mut request, 2 + bit / 32 * 2, mask);
    put(&mut request, 3 + bit / 32 * 2, if on { mask } else { 0 });
    match command(socket, link, &mut request)? {
        0 => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{link} refuses to change {feature}"),
        )),
    }
}

/// The names of all features, in the order of their bits.
fn names(socket: BorrowedFd<'_>, link: &str) -> io::Result<Vec<String>> {
    // struct ethtool_sset_info { u32 cmd; u32 reserved; u64 sset_mask; u32 data[]; }
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
    command(socket, link, &mut info)?;
    let [.., count] = info;
    let length = usize::try_from(count).map_err(io::Error::other)?;

    // struct ethtool_gstrings { u32 cmd; u32 string_set; u32 len; u8 data[len][32]; }
    let mut strings = vec![0_u32; 3 + length * NAME_WORDS];
    put(&mut strings, 0, ETHTOOL_GSTRINGS);
    put(&mut strings, 1, ETH_SS_FEATURES);
    put(&mut strings, 2, count);
    command(socket, link, &mut strings)?;
    let names = strings.get(3..).unwrap_or_default();
    Ok(names.chunks_exact(NAME_WORDS).map(name).collect())
}

fn name(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
    let text: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&text).into_owned()
}

/// Hands a request to the driver, which answers in place.
fn command(socket: BorrowedFd<'_>, link: &str, request: &mut [u32]) -> io::Result<i32> {
    // struct ifreq { char ifr_name[IFNAMSIZ]; char *ifr_data; … }
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(link.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = libc::c_char::try_from(from).map_err(io::Error::other)?;
    }
    let mut packet = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: request.as_mut_ptr().cast(),
        },
    };
    // SAFETY: `packet` is live, and its data pointer is to a request with room for the answer that its command has.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut packet) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn put(words: &mut [u32], at: usize, value: u32) {
    if let Some(word) = words.get_mut(at) {
        *word = value;
    }
}

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
const NAME_WORDS: usize = 8;
