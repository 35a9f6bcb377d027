#include <transformer/packed_folder.hpp>

#include <filesystem>

#include <lowrank/io/file.hpp>
#include <lowrank/io/gptq.hpp>

#include <transformer/data.hpp>

namespace transformer {

namespace {

namespace fs = std::filesystem;
using lowrank::FormatError;

lowrank::gptq::Packing packing_of(const fs::path& folder, const std::string& name) {
  for (const char* file : {"config.json", "quantize_config.json"}) {
    const fs::path path = folder / file;
    if (!fs::exists(path)) continue;
    if (const auto packing = lowrank::gptq::packing(read_text(path), lowrank::path_text(path))) return *packing;
  }
  lowrank::fail<FormatError>("load_folder", name, ".qweight is there, but config.json has no quantization_config of GPTQ or AWQ",
                             " that says how it is packed");
}

}  // namespace

std::optional<lowrank::AnyMatrix> take_packed(FolderTensors& tensors, const std::string& name, Index rows, Index cols) {
  const std::string codes = name + ".qweight";
  if (!tensors.has(codes)) return std::nullopt;
  const fs::path folder = tensors.file_of(codes).path().parent_path();
  const auto find = [&](const std::string& part) { return tensors.has(part) ? &tensors.file_of(part).at(part) : nullptr; };
  lowrank::AnyMatrix matrix = lowrank::gptq::load_weight(find, name, packing_of(folder, name), lowrank::path_text(folder));
  for (const char* part : {".qweight", ".qzeros", ".scales", ".g_idx"})
    if (tensors.has(name + part)) tensors.mark(name + part);
  lowrank::check<FormatError>(matrix.rows() == rows && matrix.cols() == cols, "load_folder", codes, " is [", matrix.rows(), ", ",
                              matrix.cols(), "] but config.json asks for [", rows, ", ", cols, ']');
  return matrix;
}

}  // namespace transformer
